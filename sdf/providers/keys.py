"""Keys: read where they are used, from a file or the environment, and shown nowhere.

A key lives in a `Secret` that neither prints nor pickles. A file of it is a regular one that holds the key alone; what
a file holds enters no message, whatever is wrong with it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NoReturn

from sdf.errors import RecipeError

MAX_KEY_BYTES = 4_096

# As a shell or an .env file has it. What ends in `=` is a key in base 64.
_ASSIGNMENT = re.compile(r"(export\s+)?[A-Za-z_]\w*=[^=]")


class Secret:
    """A key: `reveal` hands it out; nothing else shows it, and it does not leave the process."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key does not travel: it is read again where it is used")


def key_of(provider: str, key_file: str, variable: str) -> Secret | None:
    """The key in `key_file` when one is named, else in the environment; None when neither is there."""
    if key_file:
        return Secret(_alone(f"provider {provider}: key_file {key_file}", _read(provider, key_file)))
    value = os.environ.get(variable, "")
    return Secret(_alone(f"provider {provider}: {variable}", value)) if value.strip() else None


def no_key(provider: str, variable: str) -> RecipeError:
    return RecipeError(
        f"provider {provider}: no key; set {variable} where the workers run, or "
        "--provider-setting key_file=PATH to a file that every worker can read"
    )


def _read(provider: str, key_file: str) -> str:
    reason = ""
    try:
        path = Path(key_file).expanduser()
        # A pipe would be waited for, and a device has no end.
        if not stat.S_ISREG(path.stat().st_mode):
            reason = "is no regular file"
        else:
            with path.open("rb") as file:
                content = file.read(MAX_KEY_BYTES + 1)
            if len(content) <= MAX_KEY_BYTES:
                return content.decode("ascii")
            reason = f"holds more than {MAX_KEY_BYTES:,} bytes, which no key does"
    except UnicodeDecodeError:
        # Its text shows the bytes it met.
        reason = "is not plain ASCII"
    except (RuntimeError, ValueError):
        # `~` of a user who is not there, or a zero in it.
        reason = "is no path"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    raise RecipeError(
        f"provider {provider}: key_file {key_file} {reason}; name a file that holds the key and nothing else"
    )


def _alone(where: str, value: str) -> str:
    """The key, or RecipeError for anything around it, which would be sent along."""
    key = value.strip()
    if _ASSIGNMENT.match(key):
        raise RecipeError(f"{where} holds NAME=KEY; it holds the key alone: write what stands after the `=`")
    if re.search(r"[\"'`]", key):
        raise RecipeError(f"{where} holds a quote, which no key does; it holds the key alone: leave the quotes out")
    if not re.fullmatch(r"[!-~]+", key):
        raise RecipeError(f"{where} is empty or more than one word; it holds the key alone")
    return key
