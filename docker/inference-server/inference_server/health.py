"""The probe that HEALTHCHECK runs: one GET to this machine's server, by the standard library only.

An image then needs neither curl nor a shell, and the probe follows PORT and AIP_HTTP_PORT by itself.
"""

import os
import socket
import sys
import time

TIMEOUT_SECONDS = 3.0


def fetch(path: str, port: int, timeout: float = TIMEOUT_SECONDS) -> tuple[int, str]:
    """GET ``http://127.0.0.1:port/path``; return (status, body). The limit holds for the whole exchange, not for one read.

    A raw socket, because importing http.client alone takes longer than asking. Raises OSError, or ValueError for a reply that
    is not HTTP.
    """
    end = time.monotonic() + timeout
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: inference-server-health\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(left)
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("the reply is not HTTP")
    return int(words[1]), body.decode("utf-8", "replace")


def probe(path: str = "/health") -> int:
    """Print one line on how the server is; return 0 when it answered 200, else 1."""
    name, text = _port()
    if not text.isdecimal() or not 0 < int(text) < 65536:
        print(f"unhealthy: {name}={text} is not a port number")
        return 1
    url = f"http://127.0.0.1:{text}{path}"
    try:
        status, body = fetch(path, int(text))
    except TimeoutError:
        print(f"unhealthy: {url} did not answer within {TIMEOUT_SECONDS:g} s")
    except (OSError, ValueError) as error:
        print(f"unhealthy: {url}: {error}")
    else:
        print(f"{'healthy' if status == 200 else 'unhealthy'}: {url} answered {status} {' '.join(body.split())[:300]}")
        return 0 if status == 200 else 1
    return 1


def _port() -> tuple[str, str]:
    """The variable that says where the server listens, and its value: the same order as in settings.py."""
    for name in ("AIP_HTTP_PORT", "PORT"):
        text = os.environ.get(name, "").strip()
        if text and not (name == "AIP_HTTP_PORT" and text == "0"):
            return name, text
    return "PORT", "8080"


if __name__ == "__main__":
    sys.exit(probe("/ready" if "--ready" in sys.argv[1:] else "/health"))
