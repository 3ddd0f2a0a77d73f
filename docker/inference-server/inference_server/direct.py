"""The busiest requests, answered without FastAPI's routing and dependencies.

The routes stay declared in contracts/: for the OpenAPI document, and for every body that is not plain, valid JSON, so that each error
is worded in one place.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference_server.contracts.openai.chat import ChatRequest, chat
from inference_server.contracts.predict import PredictRequest, predict
from inference_server.errors import RequestError
from inference_server.middleware import again
from inference_server.settings import Settings

JSON = (b"content-type", b"application/json")
Handler = Callable[[Any, Request], Awaitable[Response | dict[str, Any]]]


def routes(settings: Settings) -> dict[str, tuple[type[BaseModel], Handler]]:
    """Path to the body's model and what answers it."""
    found: dict[str, tuple[type[BaseModel], Handler]] = {
        "/predict": (PredictRequest, predict),
        "/v1/chat/completions": (ChatRequest, chat),
    }
    found.pop(settings.aip_predict_route, None)  # there Vertex's shape is asked for, not ours
    return found


class Direct:
    """Stands behind every other middleware: the client is known and let in, and BodyLimit hands over the body in one message."""

    def __init__(self, app: FastAPI, settings: Settings, refuse: Callable[[Request, RequestError], Response]) -> None:
        self._app = app
        self._refuse = refuse
        self._routes: Mapping[str, tuple[type[BaseModel], Handler, SimpleNamespace]] = {
            path: (*pair, SimpleNamespace(path=path))  # what metrics, traces and log lines call the route
            for path, pair in routes(settings).items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None or JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        model, handler, route = found
        whole = await receive()
        try:
            body = model.model_validate_json(whole["body"])
        except ValidationError:
            await self._app(scope, again(whole, receive), send)
            return
        scope.update(app=self._app, route=route)
        request = Request(scope, receive, send)
        try:
            answer = await handler(body, request)
        except RequestError as error:
            answer = self._refuse(request, error)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        content = to_json(answer)
        headers = [JSON, (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
