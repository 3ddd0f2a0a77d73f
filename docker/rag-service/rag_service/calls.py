"""A call of another service: bounded in time, part of the trace, and its failures as sentences that name it."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import httpx2
from prometheus_client import Gauge

from rag_service import tracing
from rag_service.errors import DependencyDown, Refused

CONNECT_SECONDS = 2.0
KEPT_SECONDS = 20.0  # shorter than servers keep an idle connection, so that none is used that they have just closed
MOST_RETRY_AFTER = 60
# A kept connection to a service that has left the network swallows what is sent, without a word. Linux gives it up after this
# time without any acknowledgement; an answer that takes long is another matter, its request was acknowledged at once.
SOCKET_OPTIONS = (
    [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * CONNECT_SECONDS))]
    if hasattr(socket, "TCP_USER_TIMEOUT")
    else None
)
request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request in this context, handed on to who is asked for it."""


class Service:
    """A service by HTTP and JSON.

    Args:
        name: ``chroma`` or ``inference``.
        url: what paths are added to.
        seconds: longest time for one call, whatever happens in it.
        up: set to 1 by an answer, to 0 by none.
        headers: asked for at every call.
    """

    def __init__(
        self, name: str, url: str, seconds: float, up: Gauge, headers: Callable[[], dict[str, str]] = dict
    ) -> None:
        self.name = name
        self._seconds = seconds
        self._up = up
        self._headers = headers
        self._client = httpx2.AsyncClient(
            base_url=url.rstrip("/") + "/",
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            transport=httpx2.AsyncHTTPTransport(
                limits=httpx2.Limits(max_connections=64, keepalive_expiry=KEPT_SECONDS),
                socket_options=SOCKET_OPTIONS,
                trust_env=False,
            ),
            trust_env=False,  # they are beside this one: a proxy of the company network is not between
        )

    async def call(self, method: str, path: str, body: object = None, seconds: float | None = None) -> Any:
        """The JSON that it answers; None where it answers nothing.

        Raises:
            DependencyDown: no answer in time, 429, or a 5xx.
            Refused: a 4xx.
        """
        try:
            async with asyncio.timeout(min(seconds or self._seconds, self._seconds)):
                reply = await self._send(method, path, body)
        except TimeoutError:
            raise self._down("it took too long") from None
        except httpx2.TimeoutException:
            raise self._down("it took too long") from None
        except httpx2.HTTPError as error:
            raise self._down(type(error).__name__) from None
        if reply.status_code >= 500 or reply.status_code == 429:
            raise self._down(f"status {reply.status_code}", reply.headers.get("retry-after", ""))
        self._up.set(1)
        if reply.status_code >= 400:
            raise Refused(self.name, reply.status_code, _reason(reply))
        try:
            return reply.json() if reply.content else None
        except ValueError:
            raise self._down("its answer is not JSON") from None

    async def _send(self, method: str, path: str, body: object) -> httpx2.Response:
        """One request, and once more where the connection broke: everything that is asked here may be asked twice."""
        headers = {**self._headers(), **tracing.outgoing()}
        if given := request_id.get():
            headers["X-Request-ID"] = given
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(method, path, content=content, headers=headers)
        try:
            return await self._client.send(request)
        except (httpx2.NetworkError, httpx2.RemoteProtocolError):
            return await self._client.send(request)

    def _down(self, why: str, retry_after: str = "") -> DependencyDown:
        self._up.set(0)
        seconds = min(int(retry_after), MOST_RETRY_AFTER) if retry_after.isdecimal() else 2
        return DependencyDown(self.name, why, max(1, seconds))

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _reason(reply: httpx2.Response) -> str:
    """The sentence in an error of Chroma or of OpenAI's shape."""
    try:
        body = reply.json()
        error = body.get("error")
        reason = error["message"] if isinstance(error, dict) else body.get("message") or error
    except (ValueError, KeyError, AttributeError):
        reason = None
    return str(reason or reply.text or "no reason given")[:300]
