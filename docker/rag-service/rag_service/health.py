"""The probe that HEALTHCHECK runs: one GET to this machine's service, by the standard library only.

An image then needs neither curl nor a shell, and the probe follows PORT by itself.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def probe(path: str) -> int:
    """Print one line on how the service is; return 0 when it answered 200, else 1."""
    port = os.environ.get("PORT", "").strip() or "8000"
    url = f"http://127.0.0.1:{port}{path}"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read().decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"unhealthy: {url}: {error or type(error).__name__}")
        return 1
    print(
        f"{'healthy' if reply.status == 200 else 'unhealthy'}: {url} answered {reply.status} {' '.join(body.split())[:300]}"
    )
    return 0 if reply.status == 200 else 1


if __name__ == "__main__":
    sys.exit(probe("/ready" if "--ready" in sys.argv[1:] else "/health"))
