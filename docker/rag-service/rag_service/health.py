"""The probes that HEALTHCHECK runs: one GET to this machine's service, or a look at its backups, by the standard library only.

    python -m rag_service.health [--ready | --backups FOLDER SECONDS]

An image then needs neither curl nor a shell, and the probe follows PORT by itself.
"""

import http.client
import os
import sys
import time
from pathlib import Path

TIMEOUT_SECONDS = 3.0
#: A file beside the backups, as old as the last round that found no documents to copy.
NOTHING_TO_COPY = "nothing-to-copy"


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


def probe_backups(folder: Path, seconds: float) -> int:
    """Print one line on the newest backup in a folder; return 0 when it is not older than two rounds of ``seconds``, else 1.

    A round that found nothing to copy counts as one: a stack may be new.
    """
    try:
        files = (*folder.glob("*.jsonl.gz"), *folder.glob(NOTHING_TO_COPY))
        newest = max((file.stat().st_mtime, file.name) for file in files)
    except ValueError:
        print(f"unhealthy: {folder} has no backup yet")
        return 1
    except OSError as error:
        print(f"unhealthy: {folder}: {error.strerror}")
        return 1
    age = time.time() - newest[0]
    well = age <= 2 * seconds
    print(
        f"{'healthy' if well else 'unhealthy'}: {newest[1]} is {age:.0f} s old, where one is written every {seconds:g} s"
    )
    return 0 if well else 1


def main(arguments: list[str]) -> int:
    """The probe that the arguments name; its exit code."""
    match arguments:
        case []:
            return probe("/health")
        case ["--ready"]:
            return probe("/ready")
        case ["--backups", folder, seconds] if seconds.replace(".", "", 1).isdecimal():
            return probe_backups(Path(folder), float(seconds))
    print("unhealthy: write [--ready | --backups FOLDER SECONDS]")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
