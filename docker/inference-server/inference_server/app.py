"""The ASGI app: contracts as routers, errors as sentences in one shape."""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from inference_server import __version__
from inference_server.access import Access
from inference_server.contracts import oip, openai, ops, predict, sagemaker, vertex
from inference_server.direct import Direct
from inference_server.errors import RequestError
from inference_server.middleware import BodyLimit, RequestContext
from inference_server.openapi import document
from inference_server.serving import Serving


def create_app(serving: Serving) -> ASGIApp:
    """An app over ``serving``; loading the models is the caller's business. What stands around every request stands outside FastAPI."""
    app = FastAPI(
        title="inference-server",
        version=__version__,
        description="Text and class predictions over several contracts.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.serving = serving
    settings = serving.settings
    app.include_router(vertex.routes(settings))
    for contract in (ops, predict, openai, sagemaker, oip):
        app.include_router(contract.router)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.openapi = partial(document, app, serving)  # type: ignore[method-assign]
    answering = Direct(app, settings, refuse=_reply)
    limited = BodyLimit(answering, settings.max_body_bytes, settings.receive_timeout_seconds)
    return RequestContext(Access(limited, serving), serving)


def _reply(request: Request, error: RequestError) -> JSONResponse:
    request.state.error_code = error.code
    path = request.url.path
    return JSONResponse(error.body(path), error.at(path), headers=error.headers())


async def _request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return _reply(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """The first thing that is wrong, with its place in the body."""
    assert isinstance(error, RequestValidationError)
    if "json" not in request.headers.get("content-type", "json"):
        kind = request.headers["content-type"]
        return _reply(
            request,
            RequestError(415, f"The body came as {kind}: send JSON with Content-Type: application/json.", "not_json"),
        )
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it can't be parsed")
        return _reply(request, RequestError(422, f"The body is not JSON: {reason}.", "bad_json"))
    place = ".".join(str(part) for part in first["loc"][1:])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f"{place}: " if place else "The body: "
    return _reply(request, RequestError(422, f"{where}{first['msg']}{more}.", "bad_request", place or None))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """404, 405 and bodies that can't even be decoded."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    sentences = {
        400: "The body can't be read as JSON in UTF-8.",
        404: f"There is nothing at {path[:200]}; /openapi.json lists the routes.",
        405: f"{path[:200]} does not take {request.method}.",
    }
    code = {400: "bad_json", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    reply = _reply(request, RequestError(error.status_code, sentences.get(error.status_code, str(error.detail)), code))
    for name, value in (error.headers or {}).items():
        reply.headers[name] = value
    return reply
