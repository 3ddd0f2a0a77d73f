"""Who may ask, and for whom it counts: API keys where some are set, and the client that fair shares go by."""

from starlette.types import ASGIApp, Receive, Scope, Send

from inference_server import clients
from inference_server.errors import RequestError
from inference_server.middleware import send_json
from inference_server.serving import Serving


def key_wanted(serving: Serving, path: str) -> bool:
    """Whether this path is answered to holders of a key only: all but what platforms probe, and the chat page, which holds nothing."""
    return serving.keys.wanted and path != "/" and path not in serving.probes


class Access:
    """401 without a key that fits; else the request runs as its client's."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        serving = self._serving
        client = None
        if key_wanted(serving, scope["path"]):
            try:
                client = serving.keys.owner(dict(scope["headers"]))
            except RequestError as error:
                scope["state"]["error_code"] = error.code
                await send_json(send, error.status, error.body(scope["path"]), {"WWW-Authenticate": "Bearer"})
                return
            scope["state"]["key"] = client
        if client is None:
            peer = (scope.get("client") or ("", 0))[0]
            trusted = serving.proxies
            given = [value for name, value in scope["headers"] if name == b"x-forwarded-for"] if trusted else []
            client = clients.address(peer, [value.decode("latin-1") for value in given], trusted)
        token = clients.current.set(client)
        try:
            await self._app(scope, receive, send)
        finally:
            clients.current.reset(token)
