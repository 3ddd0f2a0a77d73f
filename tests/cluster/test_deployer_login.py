"""Login and calls that get no answer: each way to fail is told in a sentence."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from course_lib.cluster.api import Api
from course_lib.cluster.refusals import ApiError
from course_lib.errors import CourseError


def kubeconfig(folder: Path, server: str, ca: Path | None = None) -> Path:
    """A kubeconfig with two contexts, of which `here` is current."""
    cluster = {"server": server} | ({"certificate-authority": str(ca)} if ca else {})
    file = folder / "kubeconfig"
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("here", "there")]
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": contexts,
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"there is no kubeconfig at .*/none"):
        Api(tmp_path / "none")


def test_the_variable_kubeconfig_counts_and_a_given_file_counts_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "of-the-variable"))
    with pytest.raises(CourseError, match="of-the-variable"):
        Api()
    assert Api(kubeconfig(tmp_path, "https://127.0.0.1:1")).host == "https://127.0.0.1:1"


def test_a_context_that_is_not_in_it(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "https://127.0.0.1:1")
    with pytest.raises(CourseError) as told:
        Api(file, "elsewhere")
    assert "no context elsewhere" in told.value.what and "here, there" in told.value.do


@pytest.mark.parametrize("text", ["", "a: [", "apiVersion: v1\nkind: Config\n", "- 1\n"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(CourseError, match="does not lead to a cluster"):
        Api(file)


def test_two_logins_do_not_know_of_each_other(tmp_path: Path) -> None:
    first = Api(kubeconfig(tmp_path, "https://127.0.0.1:1"))
    second = Api(kubeconfig(tmp_path, "https://127.0.0.1:2"))
    assert (first.host, second.host) == ("https://127.0.0.1:1", "https://127.0.0.1:2")


def test_nobody_listens(tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # no proxy is asked the way to this machine itself
    monkeypatch.setenv("NO_PROXY", "")
    api = Api(kubeconfig(tmp_path, f"https://127.0.0.1:{closed_port}"))
    started = time.monotonic()
    with pytest.raises(ApiError) as told:
        api.get("v1", "Pod", "web", "lab")
    assert told.value.what == f"the API server at https://127.0.0.1:{closed_port} does not answer"
    assert "refused" in told.value.why and "roxy" not in told.value.why and "Is the cluster up?" in told.value.do
    assert told.value.passing and time.monotonic() - started < 10


def test_somebody_else_answers(tmp_path: Path) -> None:
    expected, other = trustme.CA(), trustme.CA()
    expected.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    with server.accept()[0] as one, context.wrap_socket(one, server_side=True) as safe:
                        safe.recv(1)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ApiError, match="is not the cluster of this kubeconfig"):
            Api(kubeconfig(tmp_path, address, tmp_path / "ca.pem")).get("v1", "Pod", "web", "lab")


def test_no_answer_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("course_lib.cluster.api._TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:  # accepts, and never says anything
        api = Api(kubeconfig(tmp_path, f"https://127.0.0.1:{silent.getsockname()[1]}"))
        started = time.monotonic()
        with pytest.raises(ApiError, match="did not answer in time"):
            api.objects("v1", "Pod", "lab")
        assert time.monotonic() - started < 20
