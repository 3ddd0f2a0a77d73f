"""FastAPI as its tutorial has it: the model in an ordinary function, which runs on a thread for each request.

`uvicorn fastapi_app:app --workers 2`
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from model import event, load
from pydantic import BaseModel


class Text(BaseModel):
    """A prompt and how many tokens to answer with."""

    prompt: str
    max_tokens: int


class Row(BaseModel):
    """A row of numbers."""

    inputs: list[float]


app = FastAPI()
model = load()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/generate")
def generate(body: Text) -> dict[str, Any]:
    return dict(model.answer([body.model_dump()])[0])


@app.post("/classify")
def classify(body: Row) -> dict[str, Any]:
    return dict(model.answer([body.model_dump()])[0])


@app.post("/stream")
def stream(body: Text) -> StreamingResponse:
    pieces = (event(pieces[0]) for pieces in model.stream([body.model_dump()]))
    return StreamingResponse(pieces, media_type="text/event-stream")
