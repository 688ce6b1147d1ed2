"""What every provider behind HTTP needs: its settings read, what a server said, and what a failure means.

Errors are built from what the server said, with the key and every URL query taken out.
"""

from __future__ import annotations

import asyncio
import difflib
import math
import re
import socket
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, RequestRejected, Unauthorized, Unavailable
from sdf.providers.keys import Secret
from sdf.recipe import is_secret

MAX_SAID_CHARS = 300
MAX_SECONDS = 3_600.0
# Nobody is there who has not taken a connection by then.
CONNECT_SECONDS = 10.0

# Wrong address, key, model, policy or bill: no other request will fare better.
FATAL = frozenset({401, 402, 403, 404, 405, 407, 410})
# Trouble that passes. 409 is a lock that timed out, 425 a replay that came too early.
PASSING = frozenset({408, 409, 425, 499})
# Said by a gateway that waited no longer: the server behind it may have answered, and billed.
GAVE_UP_WAITING = frozenset({499, 504, 524})
# Said with a status that otherwise passes, or blames the request: these wait for a person.
FATAL_CODES = frozenset(
    {
        "billing_error",
        "billing_hard_limit_reached",
        "contract_spend_limit_reached",
        "credit_balance_too_low",
        "enforced_spend_limit_reached",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "organization_on_hold",
    }
)
# The one condition that has no code of its own and would otherwise settle every brief of a run as failed.
NO_CREDIT = "credit balance is too low"

_WAYS_OUT: Mapping[int, str] = {
    401: "check the key",
    402: "check the bill and the limits of the account",
    403: "check what the key may do",
    404: "check --model and base_url",
    405: "check base_url",
    410: "name another --model",
    429: "raise the spend limit, or wait until it is reset",
}


def checked(provider: str, settings: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The settings over the defaults of `known`. RecipeError for an unknown one, or one that holds a key."""
    for name, value in settings.items():
        if is_secret(name, value):
            raise RecipeError(
                f"provider {provider}: {name} would hold a key, and settings are written into the corpus; "
                "give key_file=PATH, or the environment variable of the provider"
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(f"provider {provider}: unknown setting {name!r}{hint}; known: {', '.join(known)}")
    return {**known, **settings}


def seconds(provider: str, name: str, value: str, most: float = MAX_SECONDS) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= most:
        raise RecipeError(f"provider {provider}: {name} is {value!r}; write seconds above 0, up to {most:,.0f}")
    return number


def whole(provider: str, name: str, value: str, most: int) -> int:
    if not (is_count(value) and 1 <= int(value) <= most):
        raise RecipeError(
            f"provider {provider}: {name} is {said(value, None)!r}; write a whole number from 1 to {most:,}"
        )
    return int(value)


def is_count(text: str) -> bool:
    """Whether it is a whole number of which there can be so many: `int` refuses those of thousands of digits."""
    return re.fullmatch(r"[0-9]{1,12}", text) is not None


def truth(provider: str, name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise RecipeError(f"provider {provider}: {name} is {value!r}; write true or false")
    return value == "true"


def said(text: object, key: Secret | None) -> str:
    """What a server said, on one line, short, without the key, without URL queries, fit for a terminal."""
    value = key.reveal() if key is not None else ""
    # Cut where no part of a key is left at the end.
    line = str(text)[: 20 * MAX_SAID_CHARS + len(value)]
    line = (line.replace(value, "(key)") if value else line)[: 20 * MAX_SAID_CHARS]
    line = re.sub(r"(https?://[^\s?#\"']*)[?#][^\s\"']*", r"\1", line)
    line = re.sub(r"\bsk-[\w*-]{4,}", "(key)", line)
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in line).split())
    return line if len(line) <= MAX_SAID_CHARS else line[: MAX_SAID_CHARS - 1] + "…"


def unreached(provider: str, url: str, error: BaseException, *, is_sent: bool) -> Unavailable:
    """No reply came from `url`; `is_sent`: a connection was made, and what was asked may have been answered."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    why = next((words for kind, words in _TROUBLE for each in causes if isinstance(each, kind)), "no connection")
    if is_sent:
        return Unavailable(f"{provider}: the connection to {url} broke off")
    return Unavailable(f"{provider}: {url} cannot be reached ({why})", maybe_billed=False)


# The first that an error or any of its causes is. Their own words hold addresses and numbers of the system.
_TROUBLE: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "name not known"),
    (ConnectionRefusedError, "connection refused"),
    (asyncio.TimeoutError, "timed out"),
    (TimeoutError, "timed out"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "no https is spoken there"),
)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, from either header in any of its forms; None when it names none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            wait = float(value) * unit
        except ValueError:
            wait = _until(value)
        if math.isfinite(wait):
            return max(0.0, wait)
    return None


def _until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return math.nan


def failure(provider: str, status: int, code: str, message: str, wait: float | None) -> ProviderError:
    """The one error that an HTTP status and what came with it stand for.

    `code` is the server's own name for it ("" for none); `message` has been through `said`.
    """
    text = f"{provider}: {status} {code}".rstrip() + (f": {message}" if message else "")
    if 300 <= status < 400:
        return Unauthorized(f"{provider}: {status}: redirects elsewhere, which is not followed; check base_url")
    if status in FATAL or code in FATAL_CODES or NO_CREDIT in message.lower():
        way_out = _WAYS_OUT.get(status, "check the account")
        kind = NotServed if status == 404 else Unauthorized
        return kind(f"{text}; {way_out}: every answer so far is kept")
    if status == 429:
        return RateLimited(text, wait)
    if status in PASSING or status >= 500 or status < 400:
        return Unavailable(text, maybe_billed=status < 400 or status in GAVE_UP_WAITING)
    return RequestRejected(text)
