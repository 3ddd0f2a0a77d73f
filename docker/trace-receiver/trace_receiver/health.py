"""The probe that HEALTHCHECK runs: one GET of /health on this machine's PORT; one line, exit 0 or 1."""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 3.0


def probe() -> int:
    """Print how the receiver is; return 0 when it is well."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '').strip() or 4318}/health"
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is never behind a proxy
    try:
        with ask.open(url, timeout=TIMEOUT_SECONDS) as reply:
            print(f"healthy: {url} answered {reply.status}")
            return 0
    except urllib.error.HTTPError as error:
        print(f"unhealthy: {url} answered {error.code} {error.read(200).decode(errors='replace')}")
    except (OSError, ValueError) as error:
        print(f"unhealthy: {url}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(probe())
