"""What an image's own layers hold, files that a later layer deletes included: whoever has the image has all of them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from course_lib.images import inspection

#: Files that carry credentials by their very nature.
_SECRET_FILES = re.compile(
    r"/(\.env|\.netrc|\.pypirc|\.git-credentials|id_(rsa|ecdsa|ed25519)|\.git/.+|\.aws/credentials|\.docker/config\.json)$"
)
#: What a credential looks like: (what it is, pattern). Only forms that hardly occur by chance.
_SECRET_TEXTS = (
    ("a private key", re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("an AWS access key", re.compile(rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(rb"\b(gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22,})\b")),
    ("a Hugging Face token", re.compile(rb"\bhf_[0-9A-Za-z]{30,}\b")),
    ("a password or token", re.compile(rb"(?m)^(export )?[A-Z_]*(TOKEN|PASSWORD|SECRET|API_KEY)=['\"]?[^\s'\"$(]{8,}")),
)
_SMALL = 1_000_000


@dataclass(frozen=True)
class OwnLayer:
    """A layer that an image adds to its base."""

    instruction: str
    paths: frozenset[str]
    """Every file in it."""
    files: dict[str, bytes]
    """The contents of those up to a megabyte."""


def own_layers(reference: str, *, above: str) -> list[OwnLayer]:
    """The layers an image adds to a base, oldest first; all of its layers when it does not stand on that base.

    Raises:
        CourseError: the engine has no such image.
    """
    mine, base = (inspection.attributes(name)["RootFS"]["Layers"] for name in (reference, above))
    skipped = len(base) if mine[: len(base)] == base else 0
    found = []
    with inspection.unpacked(reference) as (folder, archives, instructions):
        for archive, instruction in list(zip(archives, instructions, strict=False))[skipped:]:
            paths: set[str] = set()
            files: dict[str, bytes] = {}
            with tarfile.open(folder / archive) as tar:
                for member in tar:
                    path = "/" + member.name.removeprefix("./").strip("/")
                    if member.isdir() or path.rpartition("/")[2].startswith(".wh."):
                        continue
                    paths.add(path)
                    if member.isfile() and member.size <= _SMALL and (opened := tar.extractfile(member)):
                        files[path] = opened.read()
            found.append(OwnLayer(instruction, frozenset(paths), files))
    return found


def secrets(layers: Iterable[OwnLayer]) -> dict[str, str]:
    """Files of layers that hold credentials, by name or by content: path, and what it is."""
    found: dict[str, str] = {}
    for layer in layers:
        found |= {path: "a file of credentials" for path in layer.paths if _SECRET_FILES.search(path)}
        for path, content in layer.files.items():
            for what, pattern in _SECRET_TEXTS:
                if path not in found and pattern.search(content):
                    found[path] = what
    return found
