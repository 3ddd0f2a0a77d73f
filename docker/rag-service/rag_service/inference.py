"""The inference server, by OpenAI's protocol: texts as vectors, and answers of a model."""

from pathlib import Path

from prometheus_client import Gauge

from rag_service.calls import Service
from rag_service.errors import DependencyDown, Refused, RequestError
from rag_service.settings import Settings

TEXTS = 64  # embedded in one request
Vector = list[float]


class Inference:
    """Embeds and generates, at one address or two."""

    def __init__(self, settings: Settings, up: Gauge) -> None:
        self._settings = settings
        self._key_file = Path(settings.inference_key_file) if settings.inference_key_file else None

        def service(url: str) -> Service:
            return Service("inference", url, settings.timeout_seconds, up, self._key)

        self._chat = service(settings.inference_url)
        self._embedder = service(settings.embeddings_url) if settings.embeddings_url else self._chat

    async def embed(self, texts: list[str]) -> list[Vector]:
        """One vector a text. Raises DependencyDown, or RequestError where it refuses."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), TEXTS):
            body = {"model": self._settings.embeddings_model, "input": texts[start : start + TEXTS]}
            try:
                reply = await self._embedder.call("POST", "embeddings", body)
                data = sorted(reply["data"], key=lambda item: item["index"])
                vectors += [[float(number) for number in item["embedding"]] for item in data]
            except Refused as refused:
                raise self._misfit(refused) from None
            except (KeyError, TypeError, ValueError):
                raise self._foreign("embeddings") from None
        if len(vectors) != len(texts):
            raise self._foreign("embeddings")
        return vectors

    async def chat(self, messages: list[dict[str, str]]) -> str:
        """What the model says, at temperature 0.

        Raises:
            DependencyDown: no answer.
            Refused: the prompt is too long for it, or it does not like it for another reason of its own.
            RequestError: it refuses the key, or has no such model.
        """
        body = {
            "model": self._settings.chat_model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._settings.answer_tokens,
        }
        try:
            reply = await self._chat.call("POST", "chat/completions", body)
            return str(reply["choices"][0]["message"]["content"] or "").strip()
        except Refused as refused:
            if refused.status in (401, 403, 404):
                raise self._misfit(refused) from None
            raise
        except (KeyError, IndexError, TypeError):
            raise self._foreign("chat/completions") from None

    async def look(self, seconds: float) -> None:
        """Raises DependencyDown where it does not answer within ``seconds``, or does not let this service in."""
        for service in {self._chat, self._embedder}:
            try:
                await service.call("GET", "models", seconds=seconds)
            except Refused as refused:
                raise DependencyDown("inference", f"status {refused.status}: {refused.reason}") from None

    async def close(self) -> None:
        """Close its connections."""
        await self._chat.close()
        await self._embedder.close()

    def _key(self) -> dict[str, str]:
        if self._key_file is None:
            return {}
        try:
            key = self._key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise RequestError(
                500, f"INFERENCE_KEY_FILE can't be read ({why}): give a file that this user may read.", "bad_key_file"
            ) from None
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _misfit(self, refused: Refused) -> RequestError:
        """The operator's mistake rather than the client's: a key, a model's name, an address."""
        what = {
            401: "INFERENCE_KEY_FILE",
            403: "INFERENCE_KEY_FILE",
            404: "INFERENCE_URL, CHAT_MODEL and EMBEDDINGS_MODEL",
        }
        where = what.get(refused.status, "the settings of this service and its log")
        return RequestError(502, f"{refused}. Look at {where}.", "inference_refuses")

    def _foreign(self, route: str) -> RequestError:
        return RequestError(
            502,
            f"What inference answers at {route} is not OpenAI's protocol: look at INFERENCE_URL.",
            "inference_refuses",
        )


def size_of(vectors: list[Vector]) -> int:
    """Numbers a vector. Raises RequestError where they differ."""
    sizes = {len(vector) for vector in vectors}
    if len(sizes) != 1 or 0 in sizes:
        raise RequestError(
            502, "The embedder gives vectors of several sizes: look at EMBEDDINGS_MODEL.", "inference_refuses"
        )
    return sizes.pop()
