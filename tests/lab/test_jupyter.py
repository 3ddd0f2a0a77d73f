"""JupyterLab starts on loopback, and whoever came by SSH is told how to see it."""

from __future__ import annotations

import socket

from course_lib.lab import jupyter


def test_the_tunnel_is_told_to_who_came_by_ssh() -> None:
    come = {"SSH_CONNECTION": "192.0.2.7 50122 192.0.2.10 22", "USER": "ada"}
    assert jupyter.tunnel(8888, come) == "ssh -N -L 8888:127.0.0.1:8888 ada@192.0.2.10"
    assert jupyter.tunnel(8888, {"USER": "ada"}) == ""


def test_it_listens_on_loopback_only() -> None:
    assert "--ServerApp.ip=127.0.0.1" in jupyter.command(8888, browser=False)


def test_a_port_that_is_taken_is_passed_over_before_anything_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = jupyter.free_port(port)
        assert found > port
        assert f"--ServerApp.port={found}" in jupyter.command(found, browser=False)
        assert "--ServerApp.port_retries=0" in jupyter.command(found, browser=False)
