"""The routes, and errors as sentences in one shape."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from rag_service import __version__
from rag_service.errors import RequestError
from rag_service.middleware import BodyLimit, RequestContext
from rag_service.service import Rag

CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufffd]")
SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character: JSON can write it, UTF-8 can't
MOST_CONTROL = 0.01  # of the characters; a page may have a stray one


def _written(text: str) -> str:
    """Something that a person can read."""
    if not text.strip():
        raise PydanticCustomError("empty", "it is empty: send some text")
    if "\0" in text or SURROGATE.search(text) or len(CONTROL.findall(text)) > MOST_CONTROL * len(text):
        raise PydanticCustomError("binary", "it holds binary data: send text, such as Markdown in UTF-8")
    return text


def _name(source: str) -> str:
    """A name that fits in a path and a log."""
    if source != source.strip() or not source.isprintable() or source.startswith("/"):
        raise PydanticCustomError("source", "write it as a path without a slash in front, such as docs/page.md")
    return source


Written = AfterValidator(_written)


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Document(_Body):
    """A document to take in, or to take in again."""

    source: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_name)]
    text: Annotated[str, Written]


class Question(_Body):
    """A question, and how many passages to look at."""

    question: Annotated[str, Field(max_length=2000), Written]
    k: Annotated[int, Field(ge=1, le=20)] | None = None


def create_app(rag: Rag) -> ASGIApp:
    """An app over ``rag``, which it closes at its end. What stands around every request stands outside FastAPI."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(rag.watch())
        yield
        watch.cancel()
        await rag.close()

    app = FastAPI(
        title="rag-service",
        version=__version__,
        description="Answers from documents.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)

    @app.post("/documents", summary="Take in a document; the same source again replaces it")
    async def add(document: Document) -> dict[str, Any]:
        return {"source": document.source, "chunks": await rag.documents.replace(document.source, document.text)}

    @app.get("/documents", summary="What is there")
    async def documents() -> list[dict[str, Any]]:
        _, index = await rag.documents.current()
        return [{"source": source, "chunks": count} for source, count in index.counts.items()]

    @app.delete("/documents/{source:path}", summary="Remove a document")
    async def remove(source: str) -> dict[str, Any]:
        return {"source": source, "chunks": await rag.documents.remove(source)}

    @app.post("/search", summary="The passages nearest to a question")
    async def search(body: Question, request: Request) -> dict[str, Any]:
        stages = request.state.stages = rag.stages()
        found = await rag.find(body.question, body.k, stages)
        return {"passages": [asdict(passage) for passage in found.passages]}

    @app.post("/answer", summary="An answer with its passages")
    async def answer(body: Question, request: Request) -> dict[str, Any]:
        stages = request.state.stages = rag.stages()
        reply = await rag.answer(body.question, body.k, stages)
        request.state.facts = {name: reply[name] for name in ("answered_by", "cached")}
        return reply

    @app.get("/health", summary="Alive")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/ready", summary="Ready: 503 while Chroma or inference does not answer")
    async def ready() -> JSONResponse:
        problems = await rag.problems()
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(rag.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    settings = rag.settings
    limited = BodyLimit(app, settings.max_body_bytes, settings.timeout_seconds)
    return RequestContext(limited, rag.metrics, rag.tracing)


def _reply(request: Request, error: RequestError) -> JSONResponse:
    request.state.error_code = error.code
    return JSONResponse(error.body(), error.status, headers=error.headers())


async def _bug(request: Request, error: Exception) -> JSONResponse:
    """The reply; who stands around the app gets the exception, too, and logs it."""
    message = "Something broke here; the log has it under this request's id: report it with that."
    return _reply(request, RequestError(500, message, "bug"))


async def _request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return _reply(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """The first thing that is wrong, with its place in the body."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "json")
    if "json" not in kind:
        message = f"The body came as {kind[:100]}: send JSON with Content-Type: application/json."
        return _reply(request, RequestError(415, message, "not_json"))
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it can't be parsed")
        return _reply(request, RequestError(422, f"The body is not JSON: {reason}.", "bad_json"))
    place = ".".join(str(part) for part in first["loc"][1:])[:200]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = f"{place or 'The body'}: {first['msg']}{more}. /openapi.json has what belongs there."
    return _reply(request, RequestError(422, message, "bad_request", place or None))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """404, 405 and bodies that can't even be decoded."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    sentences = {
        400: "The body can't be read as JSON in UTF-8: send JSON.",
        404: f"There is nothing at {path}; /openapi.json lists the routes.",
        405: f"{path} does not take {request.method}; /openapi.json lists what it takes.",
    }
    code = {400: "bad_json", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = sentences.get(error.status_code, str(error.detail))
    reply = _reply(request, RequestError(error.status_code, message, code))
    for name, value in (error.headers or {}).items():
        reply.headers[name] = value
    return reply
