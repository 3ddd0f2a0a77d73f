"""The search for credentials in layers: finds their forms, and leaves ordinary code alone."""

from __future__ import annotations

import pytest

from course_lib.images.layer_search import OwnLayer, secrets


def layer(path: str, content: bytes = b"") -> OwnLayer:
    return OwnLayer("COPY", frozenset({path}), {path: content})


@pytest.mark.parametrize(
    "found",
    [
        layer("/srv/.env"),
        layer("/app/.git/config"),
        layer("/home/me/.ssh/id_ed25519"),
        layer("/srv/key.txt", b"-----BEGIN OPENSSH " + b"PRIVATE KEY-----\nabc"),
        layer("/srv/settings.cfg", b"x=1\nAPI_TOKEN='" + b"0123456789abcdef'\n"),
        layer("/srv/a.json", b'{"key": "AKIA' + b'ABCDEFGHIJKLMNOP"}'),
        layer("/srv/b.py", b'TOKEN = "hf_' + b"a" * 34 + b'"'),
    ],
    ids=lambda held: next(iter(held.paths)),
)
def test_credentials_are_found(found: OwnLayer) -> None:
    assert set(secrets([layer("/srv/service.py", b"print()"), found])) == set(found.paths)


@pytest.mark.parametrize(
    "text",
    [
        b'token = os.environ["API_TOKEN"]\n',
        b"TOKEN=$(cat /run/secrets/token)\n",
        b"PASSWORD=\nexport PATH=/usr/bin\n",
        b"# set HF_TOKEN to a token of yours\n",
    ],
)
def test_ordinary_code_is_left_alone(text: bytes) -> None:
    assert secrets([layer("/srv/run.sh", text), layer("/srv/.environment")]) == {}
