"""Imported before anything else: this process connects to nothing but this machine, and what it tried is kept."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

#: What was refused, as `event host`.
refused: list[str] = []


def _is_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _is_here(host):
        refused.append(f"{event} {host}")
        raise ConnectionRefusedError(f"{host} is not this machine")


sys.addaudithook(_watch)
