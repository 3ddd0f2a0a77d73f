"""The server upstream that runs the text model where ENGINE=openai: how it is reached, and what it calls its models.

After https://platform.openai.com/docs/api-reference/models, as Ollama, vLLM and NIM have it, too. Certificates are checked against the
system's, or those of SSL_CERT_FILE; HTTPS_PROXY, HTTP_PROXY and NO_PROXY count, but for an upstream on this machine.
"""

import ipaddress
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inference_server.errors import ModelRefused
from inference_server.keys import stamp
from inference_server.models import ModelSpec
from inference_server.settings import Settings

if TYPE_CHECKING:  # imported where it is used: most servers have no upstream
    import httpx2

log = logging.getLogger("inference_server")
CONNECT_SECONDS = 5.0
KEY = re.compile(r"[\x21-\x7e]{1,4096}")  # what fits in a header
KEPT_SECONDS = 30.0


class UpstreamAway(ModelRefused):
    """The upstream does not answer, or not yet: worth waiting for."""


class UpstreamKey:
    """The key in UPSTREAM_KEY_FILE; read again when the file has changed, a mounted Kubernetes Secret too. Raises ModelRefused."""

    def __init__(self, file: str) -> None:
        self._file = Path(file) if file else None
        self._stamp: tuple[int, ...] = ()
        self._key = ""
        if self._file:
            self._read(self._file)

    def headers(self) -> dict[str, str]:
        """The header that shows it; while the file can't be read, the key of before goes on."""
        if self._file:
            try:
                self._read(self._file)
            except ModelRefused as refused:
                log.error("key for upstream not read again", extra={"fields": {"reason": str(refused)}})
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def hide(self, text: str) -> str:
        """A text from upstream, without the key should it repeat that."""
        return text.replace(self._key, "***") if self._key else text

    def _read(self, file: Path) -> None:
        try:
            found = stamp(file)
            if found == self._stamp:
                return
            self._stamp = found
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ModelRefused(
                f"UPSTREAM_KEY_FILE={file} can't be read ({why}): give a file that this user may read."
            ) from None
        if not KEY.fullmatch(key):
            raise ModelRefused(f"UPSTREAM_KEY_FILE={file} holds no key: write one line of visible ASCII characters.")
        self._key = key


def client_options(settings: Settings) -> dict[str, Any]:
    """What every HTTP client of the upstream shares: address, limits of time, and no more connections than slots."""
    import httpx2

    return {
        "base_url": settings.upstream_url.rstrip("/") + "/",
        "timeout": httpx2.Timeout(settings.upstream_timeout_seconds, connect=CONNECT_SECONDS),
        "limits": httpx2.Limits(
            max_connections=settings.slots + 1,  # one to ask whether it is back
            max_keepalive_connections=settings.slots,
            keepalive_expiry=KEPT_SECONDS,
        ),
        "trust_env": not _on_this_machine(settings.upstream_url),
    }


def upstream_models(settings: Settings) -> list[ModelSpec]:
    """The model upstream as one of ours; none where ENGINE is another.

    Raises:
        UpstreamAway: it does not answer, or with an error of its own.
        ModelRefused: it answers, and refuses the key, lacks the model or speaks another protocol.
    """
    if settings.engine != "openai":
        return []
    import httpx2

    url, key = settings.upstream_url, UpstreamKey(settings.upstream_key_file)
    try:
        with httpx2.Client(**client_options(settings)) as client:
            reply = client.get("models", headers=key.headers(), timeout=CONNECT_SECONDS)
    except httpx2.HTTPError as error:
        raise UpstreamAway(
            f"{url} does not answer ({type(error).__name__}): is it running? See UPSTREAM_URL."
        ) from None
    if reply.status_code in (401, 403):
        what = (
            "refuses the key in UPSTREAM_KEY_FILE"
            if settings.upstream_key_file
            else "wants a key: set UPSTREAM_KEY_FILE"
        )
        raise ModelRefused(f"{url} {what} (status {reply.status_code}).")
    if reply.status_code == 429 or reply.status_code >= 500:
        raise UpstreamAway(f"{url} answers with status {reply.status_code}: is it still starting?")
    return [_spec(_listed(reply, url), settings)]


def _listed(reply: "httpx2.Response", url: str) -> dict[str, int]:
    """Every model upstream with when it was made. Raises ModelRefused."""
    try:
        if reply.status_code != 200:
            raise ValueError
        return {str(each["id"]): int(each.get("created") or 0) for each in reply.json()["data"] or []}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelRefused(
            f"{url}/models is not OpenAI's list of models (status {reply.status_code}): "
            "UPSTREAM_URL has to end where that API begins, mostly in /v1."
        ) from None


def _spec(listed: dict[str, int], settings: Settings) -> ModelSpec:
    """The model that UPSTREAM_MODEL names, or the only one. Raises ModelRefused."""
    wanted, has = settings.upstream_model, ", ".join(listed)[:1000] or "none"
    if not wanted and len(listed) == 1:
        wanted = next(iter(listed))
    if not wanted:
        raise ModelRefused(f"UPSTREAM_MODEL is not set, and {settings.upstream_url} has these models: {has}.")
    if f"{wanted}:latest" in listed:  # Ollama takes that for granted
        wanted += ":latest"
    if wanted not in listed:
        raise ModelRefused(
            f"{settings.upstream_url} has no model {wanted!r}: set UPSTREAM_MODEL to one it has, or load it there. It has: {has}."
        )
    name, _, tag = wanted.rpartition("/")[2].partition(":")
    card = {"upstream": settings.upstream_url, "upstream_model": wanted, "created": listed[wanted]}
    return ModelSpec(_plain(name), _plain(tag), "generate", "openai", Path(), Path(), card)


def _plain(name: str) -> str:
    """As names and versions are here: they stand in paths, headers and labels."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:100] or "1"


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
