"""Whose request this is: the name of its API key, else the address it came from, through proxies that are named."""

import functools
import ipaddress
from contextvars import ContextVar

from inference_server.errors import StartError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MOST_PROXIES = 16

current: ContextVar[str] = ContextVar("client", default="")
"""The client of the request that runs in this context: set once a request, read by engines, whichever contract is between."""


def read_networks(text: str) -> tuple[Network, ...]:
    """TRUSTED_PROXIES: addresses and networks in CIDR form, with commas. Raises StartError."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise StartError(f"TRUSTED_PROXIES={text}: {error}; write addresses or networks such as 10.0.0.0/8.") from None


def address(peer: str, forwarded: list[str], trusted: tuple[Network, ...]) -> str:
    """The client's address: the peer, or, as long as that is a trusted proxy, the one it says it speaks for.

    ``forwarded`` are the X-Forwarded-For headers, in order. They are read from the right: a proxy writes the address it saw at the end,
    and whatever stands left of the first stranger is that stranger's own invention. An IPv6 client is its /64 network, all of which
    one person holds.
    """
    client = _parse(peer)
    if client is None:
        return peer
    if trusted:
        for entry in reversed(",".join(forwarded).split(",")[-MOST_PROXIES:]):
            if not any(client in network for network in trusted):
                break
            said = _parse(entry.strip())
            if said is None:
                break
            client = said
    return str(client) if client.version == 4 else str(ipaddress.ip_network((client, 64), strict=False))


@functools.lru_cache(4096)
def _parse(text: str) -> Address | None:
    """An address, perhaps with a port, as proxies write it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
