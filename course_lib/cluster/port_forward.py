"""A port of a pod on this machine's loopback, through the API server: for what no Service leads to from outside."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kubernetes import client
from kubernetes.stream.ws_client import portforward_call

from course_lib.cluster.api import Api
from course_lib.errors import CourseError


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
    with _Server(api, f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward", port) as server:
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
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, api: Api, path: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Carrier)
        self.api, self.path, self.port = api, path, port
        self.open: set[socket.socket] = set()

    def connect(self) -> socket.socket:
        """A connection to the pod's port."""
        # As the library's `stream.portforward` does it, which puts another transport into the client meanwhile, and so
        # serves one thread only.
        _, url, headers, *_ = self.api.client.param_serialize(
            "GET", self.path, query_params=[("ports", self.port)], auth_settings=["BearerToken"]
        )
        there: socket.socket = portforward_call(self.api.configuration, "GET", url, headers=headers).socket(self.port)
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
        except client.ApiException:
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
