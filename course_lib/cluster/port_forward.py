"""A port of a pod, or of a Service's pods, on this machine's loopback, through the API server: for what nothing else leads to."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kubernetes import client
from kubernetes.stream.ws_client import portforward_call

from course_lib.cluster.api import Api
from course_lib.errors import CourseError

#: Seconds for which the list of a Service's pods is believed.
_FRESH = 0.25


@contextmanager
def forward(api: Api, namespace: str, pod: str, port: int) -> Iterator[str]:
    """An address of 127.0.0.1, as `http://127.0.0.1:41234`, that leads to a port of a pod while the block runs.

    It goes through the kubelet into the pod itself, so no NetworkPolicy is in its way; a server that listens on 127.0.0.1
    only is reached, too.

    Raises:
        ApiError: there is no such pod.
        CourseError: the pod does not run.
    """
    found = api.get("v1", "Pod", pod, namespace)
    if found["status"].get("phase") != "Running":
        raise CourseError(f"pod {pod} does not run", why=f"It is {found['status'].get('phase')}.")
    with _carried(api, namespace, lambda: (pod, port)) as address:
        yield address


@contextmanager
def forward_service(api: Api, namespace: str, service: str) -> Iterator[str]:
    """An address of 127.0.0.1 that leads each connection to one of the pods that a Service lists at that moment, drawn by lot.

    What a Service does on a node is done here: `kubectl port-forward service/…` chooses one pod, once, and stays with it.

    Raises:
        ApiError: there is no such Service.
    """
    api.get("v1", "Service", service, namespace)
    listed: list[tuple[str, int]] = []
    until = 0.0

    def drawn() -> tuple[str, int]:
        nonlocal listed, until
        if time.monotonic() > until:
            listed, until = _listed(api, namespace, service), time.monotonic() + _FRESH
        if not listed:
            raise CourseError(f"Service {service} lists no pod that is ready")
        return random.choice(listed)

    with _carried(api, namespace, drawn) as address:
        yield address


def _listed(api: Api, namespace: str, service: str) -> list[tuple[str, int]]:
    """(pod, port) of each pod that a Service sends to, by its first port."""
    found = api.find("v1", "Endpoints", service, namespace) or {}
    return [
        (one["targetRef"]["name"], subset["ports"][0]["port"])
        for subset in found.get("subsets") or []
        for one in subset.get("addresses") or []
    ]


@contextmanager
def _carried(api: Api, namespace: str, choose: Callable[[], tuple[str, int]]) -> Iterator[str]:
    with _Server(api, namespace, choose) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.cut()
            serving.join()


class _Server(socketserver.ThreadingTCPServer):
    """Carries each connection over one of its own to the API server.

    In this process and not by `kubectl port-forward`: that one ends with the first connection that a server resets ("lost
    connection to pod", kubectl 1.32), and this one is gone when the process is, however it ends. The price is a TLS
    handshake for each connection. The channel knows no half-closed connections: a client that closes its own half before
    it has the answer does not get it.

    Args:
        choose: the pod and its port for a new connection.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, api: Api, namespace: str, choose: Callable[[], tuple[str, int]]) -> None:
        super().__init__(("127.0.0.1", 0), _Carrier)
        self.api, self.namespace, self.choose = api, namespace, choose
        self.open: set[socket.socket] = set()

    def connect(self) -> socket.socket:
        """A connection to a pod's port."""
        pod, port = self.choose()
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/portforward"
        # As the library's `stream.portforward` does it, which puts another transport into the client meanwhile, and so
        # serves one thread only.
        _, url, headers, *_ = self.api.client.param_serialize(
            "GET", path, query_params=[("ports", port)], auth_settings=["BearerToken"]
        )
        there: socket.socket = portforward_call(self.api.configuration, "GET", url, headers=headers).socket(port)
        return there

    def cut(self) -> None:
        """Ends the connections that are still open."""
        for one in list(self.open):
            _end(one)


class _Carrier(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        here = self.request
        try:
            there = self.server.connect()
        except (client.ApiException, CourseError):
            return  # the pod is gone, or the server: who has connected sees the connection end
        self.server.open |= {here, there}
        try:
            back = threading.Thread(target=_copy, args=(there, here), daemon=True)
            back.start()
            _copy(here, there)
            back.join()
        finally:
            self.server.open -= {here, there}
            there.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Carries bytes until one side ends, and then ends both."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
