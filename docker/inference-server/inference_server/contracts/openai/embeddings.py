"""/v1/embeddings, after https://platform.openai.com/docs/api-reference/embeddings."""

import asyncio
import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from inference_server.contracts.openai.shapes import INDEX, Positive, reply
from inference_server.contracts.responses import Json
from inference_server.engines.base import Floats, Usage
from inference_server.errors import RequestError, too_late
from inference_server.serving import answered_by, serving

router = APIRouter(prefix="/v1", tags=["openai"])
MOST_TEXTS = 2048  # OpenAI's limit
Text = Annotated[str, Field(min_length=1)]

ITEM: Json = {
    "object": {"const": "embedding"},
    "index": INDEX,
    "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]},
}


class EmbeddingRequest(BaseModel):
    """A text or a list of texts."""

    model_config = ConfigDict(
        extra="allow", strict=True, json_schema_extra={"example": {"input": ["What is a Docker image?"]}}
    )

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    model: str | None = Field(
        None, max_length=200, description="Name, or name:version; without it the first embedding model."
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Positive | None = Field(None, description="Keep this many, scaled to length 1 again.")

    @field_validator("input", mode="before")
    @classmethod
    def _texts_only(cls, value: object) -> object:
        """Token ids belong to one model's tokenizer, and this kind of model has none."""
        if isinstance(value, list) and value and isinstance(value[0], int | float | list):
            raise PydanticCustomError("token_ids", "This server embeds texts: send strings, not token ids")
        return value


@router.post(
    "/embeddings",
    summary="Texts as vectors of length 1",
    responses=reply("list", "data", ITEM, streamed=False),
)
async def embeddings(body: EmbeddingRequest, request: Request) -> JSONResponse:
    """``base64`` is little-endian float32, which is what the openai package asks for; ``usage`` counts words."""
    state = serving(request)
    model = state.models.embedder(body.model)
    answered_by(request, model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    width = body.dimensions or model.engine.dimensions
    if width > model.engine.dimensions:
        raise RequestError(
            400,
            f"dimensions is {width} and {model.spec.id} has {model.engine.dimensions}: ask for fewer.",
            "too_many_dimensions",
            "dimensions",
        )
    seconds = state.settings.request_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            vectors, tokens = await model.embed(texts)
    except TimeoutError:
        raise too_late(seconds) from None
    if width < model.engine.dimensions:
        vectors = vectors[:, :width] / np.maximum(np.linalg.norm(vectors[:, :width], axis=1, keepdims=True), 1e-12)
    request.state.usage = Usage(tokens, 0)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": model.spec.id, "usage": usage})


def _written(vector: Floats, form: str | None) -> Any:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [round(float(value), 7) for value in vector]
