"""The command line: it parses, calls `sdf.api`, prints.

stdout holds the result alone (with --json one object), stderr what is said meanwhile. Nothing heavy is imported before
a command needs it, so that `sdf --help` answers at once.
"""

from sdf.cli import genres, looking, making
from sdf.cli.app import app, main

__all__ = ["app", "genres", "looking", "main", "making"]
