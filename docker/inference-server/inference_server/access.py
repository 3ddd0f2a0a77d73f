"""Who may ask, and for whom it counts: API keys where some are set, and the client that fair shares go by."""

from starlette.types import ASGIApp, Receive, Scope, Send

from inference_server import clients
from inference_server.errors import RequestError
from inference_server.middleware import send_json
from inference_server.serving import Serving

# What a platform asks without a key: is it alive, may it have work, how is it; and the chat page, which holds nothing.
OPEN = frozenset({"/", "/health", "/ready", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"})


class Access:
    """401 without a key that fits; else the request runs as its client's."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        # Vertex AI asks for health where AIP_HEALTH_ROUTE says.
        self._open = OPEN | {serving.settings.aip_health_route or "/health"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        serving = self._serving
        client = None
        if serving.keys.wanted and scope["path"] not in self._open:
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
