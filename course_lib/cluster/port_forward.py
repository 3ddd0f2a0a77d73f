"""A port of a pod on this machine's loopback, through the API server: for what no Service leads to from outside."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kubernetes import client
from kubernetes.stream import portforward

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
    with _Server(api.configuration, namespace, pod, port) as server:
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

    In this process and not by `kubectl port-forward`: so it is gone when the process is, however that ends, it needs no
    program, and one connection that breaks does not end the others, as it does there. The channel knows no half-closed
    connections: a client that closes its own half before it has the answer does not get it.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, configuration: client.Configuration, namespace: str, pod: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Carrier)
        self.configuration, self.namespace, self.pod, self.port = configuration, namespace, pod, port
        self.open: set[socket.socket] = set()

    def cut(self) -> None:
        """Ends the connections that are still open."""
        for one in list(self.open):
            _end(one)


class _Carrier(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        here, to = self.request, self.server
        # Each its own: while it connects, the library puts another transport into the client that it is given.
        core = client.CoreV1Api(client.ApiClient(to.configuration))
        try:
            carried = portforward(core.connect_get_namespaced_pod_portforward, to.pod, to.namespace, ports=str(to.port))
        except client.ApiException:
            return  # the pod is gone, or the server: who has connected sees the connection end
        there = carried.socket(to.port)
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
