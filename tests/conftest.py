"""Makes `tests/support.py` importable from every test: pytest puts this file's directory on the path."""
