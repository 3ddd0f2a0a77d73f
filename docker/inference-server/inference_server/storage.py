"""AIP_STORAGE_URI: a local folder as it is, a folder of a Google Cloud Storage bucket copied to this machine first.

A bucket is read by the JSON API (https://cloud.google.com/storage/docs/json_api) with the standard library, because the vendor's
client would weigh more than the server. As Google's own clients do: STORAGE_EMULATOR_HOST points to another server, which is asked
without a token; elsewhere the token of the machine's service account comes from the metadata server (GCE_METADATA_HOST).
"""

import atexit
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from inference_server.errors import StartError

TIMEOUT_SECONDS = 30
CHUNK = 1 << 20


def local_folder(uri: str) -> Path:
    """Where the model of ``uri`` lies on this machine. Raises StartError with a sentence."""
    parts = urlsplit(uri)
    if parts.scheme == "gs":
        return _fetch(parts.netloc, unquote(parts.path).strip("/"))
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme:
        raise StartError(f"AIP_STORAGE_URI={uri} is neither gs://bucket/folder nor a local folder.")
    return Path(uri)


def _fetch(bucket: str, folder: str) -> Path:
    """Copy every object under a folder of a bucket into a new local folder."""
    uri = f"gs://{bucket}/{folder}"
    try:
        names = _list(bucket, f"{folder}/" if folder else "")
        if not names:
            raise StartError(f"AIP_STORAGE_URI={uri} holds nothing: is it the folder the model was uploaded to?")
        target = Path(tempfile.mkdtemp(prefix="model-"))
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        for name in names:
            path = target / name[len(folder) :].lstrip("/")
            if target not in path.resolve().parents:
                raise StartError(
                    f"AIP_STORAGE_URI={uri} has an object whose name leads out of its folder: {name[:200]!r}."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(bucket, name, path)
    except urllib.error.HTTPError as error:
        hint = (
            " Does this machine's service account have the role Storage Object Viewer?"
            if error.code in (401, 403)
            else ""
        )
        raise StartError(
            f"AIP_STORAGE_URI={uri}: the storage service answered {error.code} {error.reason}.{hint}"
        ) from None
    except (OSError, ValueError) as error:
        raise StartError(f"AIP_STORAGE_URI={uri} can't be copied to {tempfile.gettempdir()}: {error}.") from None
    return target


def _list(bucket: str, prefix: str) -> list[str]:
    """Names of the objects under a prefix; a name that ends in a slash is only a folder's placeholder."""
    names: list[str] = []
    token = ""
    while True:
        query = {"prefix": prefix, **({"pageToken": token} if token else {})}
        with _open(f"/storage/v1/b/{quote(bucket, safe='')}/o?{urlencode(query)}") as reply:
            page: dict[str, Any] = json.load(reply)
        names += [item["name"] for item in page.get("items", []) if not item["name"].endswith("/")]
        token = page.get("nextPageToken", "")
        if not token:
            return names


def _download(bucket: str, name: str, path: Path) -> None:
    """One object into one file. Raises ValueError when less came than was promised."""
    with (
        _open(f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media") as reply,
        path.open("wb") as file,
    ):
        promised = reply.headers.get("Content-Length")
        while chunk := reply.read(CHUNK):
            file.write(chunk)
    if promised and path.stat().st_size != int(promised):
        raise ValueError(f"{name} ended after {path.stat().st_size:,} of {int(promised):,} bytes")


def _open(path: str) -> Any:
    """GET from the emulator where one is named, else from Google with this machine's token."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if emulator:
        base = emulator if "://" in emulator else f"http://{emulator}"
        return urllib.request.urlopen(f"{base.rstrip('/')}{path}", timeout=TIMEOUT_SECONDS)
    request = urllib.request.Request(
        f"https://storage.googleapis.com{path}", headers={"Authorization": f"Bearer {_token()}"}
    )
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def _token() -> str:
    """An access token of the machine's service account (https://cloud.google.com/compute/docs/metadata). Raises OSError."""
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            return str(json.load(reply)["access_token"])
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"no token from {host} ({error}); gs:// is read on Google Cloud, or with STORAGE_EMULATOR_HOST"
        ) from None
