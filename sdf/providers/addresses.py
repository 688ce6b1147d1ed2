"""Where a key may be sent: https, or plain http on loopback; never a link-local address.

The trade-off: a host name is not resolved here, so a name that points to a private address is trusted as the recipe
that holds it is.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from sdf.errors import RecipeError

MAX_PORT = 65_535
# Characters of an address that a message repeats.
MAX_SHOWN = 100

# Link-local 169.254.0.0/16 and fe80::/10 are refused whole; these lie elsewhere.
METADATA = frozenset({"fd00:ec2::254", "100.100.100.200"})


def base_url(provider: str, text: str, *, allow_insecure: bool, root: str = "") -> str:
    """The address without its last slash. RecipeError for one that a key must not be sent to; `root` is the path that
    servers of the provider have, for the address that it suggests."""
    head = f"provider {provider}: base_url {_shown(text)!r}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    # Clients make letters and digits of other signs, which no check of the host would see.
    is_plain = re.fullmatch(r"[!-~]+", text.strip()) is not None
    if parts.scheme not in ("http", "https") or not host or not is_plain:
        raise RecipeError(f"{head} is not an address; write {_meant(_shown(text), root)}")
    if parts.username is not None or parts.query or parts.fragment or "?" in text or "#" in text:
        raise RecipeError(
            f"{head} carries a user name, query or fragment; "
            "write the address alone: a key comes from the environment or key_file"
        )
    address = _address(host)
    if address is not None and (address.is_link_local or address.is_unspecified or address.is_multicast):
        raise RecipeError(f"{head} is an address that serves no model; write {_meant('', root)}")
    if address is not None and str(address) in METADATA:
        raise RecipeError(f"{head} is a cloud's metadata service, which serves no model; write {_meant('', root)}")
    if parts.scheme == "http" and not _is_loopback(host) and not allow_insecure:
        raise RecipeError(
            f"{head} is plain http, which shows key and texts to the network; "
            "use https, or --provider-setting allow_insecure=true on a network of your own"
        )
    return text.strip().rstrip("/")


def _shown(text: str) -> str:
    """What was typed, short and plain, without what may be a key: a user name, a query, a fragment."""
    head = re.split(r"[?#]", text.strip(), maxsplit=1)[0]
    scheme, slashes, rest = head.partition("://") if "://" in head else ("", "", head)
    if "@" in text[len(head) :]:
        # Nobody can say where a password ends.
        rest = "…"
    shown = "".join(sign for sign in f"{scheme}{slashes}{rest.rpartition('@')[2]}" if sign.isprintable())
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def _meant(typed: str, root: str) -> str:
    """The address that what was typed may stand for: the scheme is what is left out most, then comes a wrong port."""
    host = re.fullmatch(r"(?:https?://)?([\w.-]+)(:\d+)?(/[\w./-]*)?", typed, re.ASCII)
    if host is None:
        return f"https://HOST{root}"
    is_port = host[2] is None or int(host[2][1:]) <= MAX_PORT
    scheme = "http" if _is_loopback(host[1]) else "https"
    return f"{scheme}://{host[1]}{(host[2] or '') if is_port else ':8000'}{(host[3] or '').rstrip('/') or root}"


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


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
