"""Makes `tests/support.py` importable from every test, and sets how hypothesis searches.

At a desk every run tries new examples. In CI the same ones are tried each time, so that a change is judged by itself:
an example that fails there fails everywhere, and what a desk finds becomes an `@example`. Deadlines are off: tests
never time.
"""

import os

from hypothesis import settings

settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
