"""What kubectl says is told apart by its words: an API server that is away, and a file that is wrong."""

from __future__ import annotations

import pytest

from course_lib.cluster import explanations
from course_lib.shell import CommandError

_NODES = 'Get "https://127.0.0.1:43317/api/v1/nodes?limit=500"'
_RESET = "read tcp 127.0.0.1:5291->127.0.0.1:43317: read: connection reset by peer"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("Unable to connect to the server: EOF", "API server does not answer"),
        ("error: EOF", "API server does not answer"),
        (f"error: {_NODES}: EOF - error from a previous attempt: {_RESET}", "API server does not answer"),
        (f"error: {_NODES}: {_RESET} - error from a previous attempt: {_RESET}", "API server does not answer"),
        (f"error: {_NODES}: net/http: TLS handshake timeout", "API server does not answer"),
        ("The connection to the server 127.0.0.1:1 was refused - did you specify the right host?", "does not answer"),
        ("error: error parsing a.json: unexpected EOF", "a manifest can't be read"),
        ("error: error parsing a.yaml: error converting YAML to JSON: yaml: line 3: x", "a manifest can't be read"),
    ],
)
def test_kubectls_words(said: str, what: str) -> None:
    """As kubectl 1.32 said them, some of them while the API server was killed and started again."""
    found = explanations.of_kubectl(CommandError(["kubectl", "get", "nodes"], 1, "", said))
    assert what in found.what and found.do and said in found.why
    assert found.passing is ("does not answer" in what), "who waits goes on where the server is only away"


def test_a_kubectl_that_ran_out_of_time_may_do_better_later() -> None:
    assert explanations.of_kubectl(CommandError(["kubectl", "get", "nodes"], None, "", "")).passing
