"""An image with a fresh token in one of its layers, for the learner to find."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tempfile
from pathlib import Path

from course_lib import ledger
from course_lib.exercises.ticket_router import SERVICE
from course_lib.images import bases, buildkit
from course_lib.lab.exercise import STARTERS, NotYet
from course_lib.settings import settings

RECIPE = STARTERS / "4.4.1" / "leaked-secret" / "Dockerfile"


def _record() -> Path:
    """Outside the image, and the token's hash only: the answer is found in the image or nowhere."""
    return settings().state_dir / "exercises" / f"leaked-token-{settings().checkout_id}.json"


def _recorded() -> dict[str, str]:
    return dict(json.loads(_record().read_text())) if _record().is_file() else {}


def build() -> str:
    """An image with a token in one of its layers and a last layer that deletes it; returns its reference.

    The session's first call bakes a new token. A later one returns the same image as long as it is there: call, answer
    and check stand in one cell, and whoever runs it again has the answer to the token that was found before.
    """
    known = _recorded()
    if known.get("session") == ledger.Session.current().id and buildkit.image_id(known["image"]):
        return known["image"]
    token = f"tkt_{secrets.token_hex(12)}"
    with tempfile.TemporaryDirectory() as held:
        context = Path(held) / "context"
        shutil.copytree(SERVICE, context, ignore=shutil.ignore_patterns("__pycache__"))
        (context / ".env").write_text(f"ROUTER_TOKEN={token}\n")
        hashed = hashlib.sha256(token.encode()).hexdigest()
        tag = f"course/ticket-router-leaky:{hashed[:12]}"
        buildkit.build(context, file=RECIPE, tag=tag, args={"BASE_IMAGE": bases.ensure().runtime})
    _record().parent.mkdir(parents=True, exist_ok=True)
    _record().write_text(json.dumps({"image": tag, "sha256": hashed, "session": ledger.Session.current().id}))
    return tag


def require_found(answer: object) -> str:
    """Compares an answer with what was baked in; returns the image's reference.

    Raises:
        NotYet: it is something else; says what it looks like.
    """
    held = _recorded()
    if not held:
        raise NotYet("no image was built yet", expected="exercises.leak() was called", look="the cell above")
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    text = text.strip().removeprefix("ROUTER_TOKEN=").strip("'\"")
    if hashlib.sha256(text.encode()).hexdigest() == held["sha256"]:
        return held["image"]
    if text.rpartition("/")[2] in (".env", "ROUTER_TOKEN"):
        seen = f"{text} is the name of what holds the token, not the token"
    elif text.startswith("tkt_"):
        seen = f"{text} has the right form, and is not what is in {held['image']}"
    else:
        seen = f"{text[:40]!r} is not the token; it starts with tkt_"
    raise NotYet(
        seen,
        expected=f"the token in a layer of {held['image']}",
        look="the layers below the one that deletes: each is an archive of its own",
    )
