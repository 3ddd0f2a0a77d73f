"""The busiest small request, POST /predict, answered without FastAPI's routing and dependencies, which cost it a third of its time.

The route stays declared in contracts/predict.py: for the OpenAPI document, and for every body that is not plain, valid JSON, so that
each error is worded in one place.
"""

from collections.abc import Callable
from types import SimpleNamespace

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_server.contracts.predict import PredictRequest, predict
from inference_server.errors import RequestError

ROUTE = SimpleNamespace(path="/predict")  # what metrics, traces and log lines call it
JSON = (b"content-type", b"application/json")


class Direct:
    """Stands behind every other middleware: the client is known and let in, and BodyLimit hands over the body in one message."""

    def __init__(self, app: ASGIApp, reply: Callable[[Request, RequestError], Response]) -> None:
        self._app = app
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] != ROUTE.path
            or scope["method"] != "POST"
            or JSON not in scope["headers"]
        ):
            await self._app(scope, receive, send)
            return
        whole = await receive()
        try:
            asked = PredictRequest.model_validate_json(whole["body"])
        except ValidationError:
            await self._app(scope, _again(whole, receive), send)
            return
        scope["route"] = ROUTE
        request = Request(scope, receive, send)
        try:
            content = to_json(await predict(asked, request))
        except RequestError as error:
            await self._reply(request, error)(scope, receive, send)
            return
        headers = [JSON, (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _again(first: Message, receive: Receive) -> Receive:
    """``receive`` as if ``first`` had not been read yet."""
    left = [first]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
