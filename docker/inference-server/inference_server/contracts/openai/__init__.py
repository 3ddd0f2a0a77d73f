"""OpenAI's contract: models, chat and text completions (whole or streamed), embeddings.

After https://platform.openai.com/docs/api-reference: what this server can't do is refused with 400, never silently ignored, if it would
change the answer.
"""

from fastapi import APIRouter

from inference_server.contracts.openai import chat, completions, embeddings, models
from inference_server.contracts.openai.shapes import error_status

__all__ = ["error_status", "router"]

router = APIRouter()
for part in (models, chat, completions, embeddings):
    router.include_router(part.router)
