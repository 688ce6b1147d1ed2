"""What every provider behind HTTP needs: its settings, its key, where it may be sent, and what a failure means.

A key is read where it is used, lives in a `Secret` that neither prints nor pickles, and goes to the addresses of
`base_url` alone: https, or plain http on loopback; never a redirect, never a link-local address. Errors are built
from what the server said, with the key and every URL query taken out. The trade-off: a host name is not resolved
here, so a name that points to a private address is trusted as the recipe that holds it is.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, RequestRejected, Unauthorized, Unavailable
from sdf.recipe import is_secret

MAX_KEY_CHARS = 4_096
MAX_SAID_CHARS = 300
MAX_SECONDS = 3_600.0
# Nobody is there who has not taken a connection by then.
CONNECT_SECONDS = 10.0

# Wrong address, key, model, policy or bill: no other request will fare better.
FATAL = frozenset({401, 402, 403, 404, 405, 407})
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
    429: "raise the spend limit, or wait until it is reset",
}


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
        raise RecipeError(f"provider {provider}: {name} is {value!r}; write seconds above 0, up to {most:g}")
    return number


def whole(provider: str, name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= most):
        raise RecipeError(f"provider {provider}: {name} is {value!r}; write a whole number from 1 to {most:,}")
    return int(value)


def truth(provider: str, name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise RecipeError(f"provider {provider}: {name} is {value!r}; write true or false")
    return value == "true"


def key_of(provider: str, key_file: str, variable: str) -> Secret | None:
    """The key in `key_file` when one is named, else in the environment; None when neither is there."""
    if key_file:
        return Secret(_one_line(provider, f"key_file {key_file}", _read(provider, key_file)))
    value = os.environ.get(variable, "")
    return Secret(_one_line(provider, variable, value)) if value.strip() else None


def no_key(provider: str, variable: str) -> RecipeError:
    return RecipeError(
        f"provider {provider}: no key; set {variable} where the workers run, or "
        "--provider-setting key_file=PATH to a file that every worker can read"
    )


def _read(provider: str, key_file: str) -> str:
    path = Path(key_file).expanduser()
    reason = ""
    try:
        if path.stat().st_size > MAX_KEY_CHARS:
            reason = f"holds more than {MAX_KEY_CHARS} bytes, which no key does"
        else:
            return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        # Its text shows the bytes it met.
        reason = "is not plain ASCII"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    raise RecipeError(f"provider {provider}: key_file {key_file} {reason}; it holds the key and nothing else")


def _one_line(provider: str, where: str, value: str) -> str:
    key = value.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise RecipeError(f"provider {provider}: {where} is empty or more than one word; it holds the key alone")
    return key


def base_url(provider: str, text: str, *, allow_insecure: bool) -> str:
    """The address without its last slash. RecipeError for one that a key must not be sent to."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise RecipeError(f"provider {provider}: base_url {_shown(parts)!r} is not an address; write https://HOST/v1")
    if parts.username is not None or parts.query or parts.fragment or "?" in text or "#" in text:
        raise RecipeError(
            f"provider {provider}: base_url {_shown(parts)!r} carries a user name, query or fragment; "
            "write the address alone: a key comes from the environment or key_file"
        )
    address = _address(host)
    if address is not None and (address.is_link_local or address.is_unspecified or address.is_multicast):
        raise RecipeError(f"provider {provider}: base_url {_shown(parts)!r} is an address that serves no model")
    if address is not None and str(address) in METADATA:
        raise RecipeError(f"provider {provider}: base_url {_shown(parts)!r} is a cloud's metadata service")
    is_loopback = host == "localhost" or (address is not None and address.is_loopback)
    if parts.scheme == "http" and not is_loopback and not allow_insecure:
        raise RecipeError(
            f"provider {provider}: base_url {_shown(parts)!r} is plain http, which shows key and texts to the network; "
            "use https, or --provider-setting allow_insecure=true on a network of your own"
        )
    return text.strip().rstrip("/")


# Link-local 169.254.0.0/16 and fe80::/10 are refused whole; these lie elsewhere.
METADATA = frozenset({"fd00:ec2::254", "100.100.100.200"})


def _shown(parts: SplitResult) -> str:
    """Scheme and host alone: a user name or a query may be a key."""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if parts.scheme else host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a resolver makes of the host, in any of the forms it reads; None for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # 2852039166 and 0xa9fea9fe are 169.254.169.254 to every resolver.
            found = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(found, "ipv4_mapped", None) or found


def said(text: object, key: Secret | None) -> str:
    """What a server said, on one line, short, without the key, without URL queries, fit for a terminal."""
    line = str(text)[: 20 * MAX_SAID_CHARS]
    if key is not None:
        line = line.replace(key.reveal(), "(key)")
    line = re.sub(r"(https?://[^\s?#\"']*)[?#][^\s\"']*", r"\1", line)
    line = re.sub(r"\bsk-[\w*-]{4,}", "(key)", line)
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in line).split())
    return line if len(line) <= MAX_SAID_CHARS else line[: MAX_SAID_CHARS - 1] + "…"


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
    except (ValueError, TypeError):
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
