"""work/: the learner's copies. Made once, never overwritten, never merged behind anybody's back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from course_lib.lab import catalog
from course_lib.settings import CHECKOUT, settings

LABS = CHECKOUT / "labs"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def prepare() -> list[str]:
    """Copies each lab's notebook to work/ when there is none yet; says in a line each what was done or is newer."""
    work = settings().work_dir
    work.mkdir(parents=True, exist_ok=True)
    known_file = work / ".originals.json"
    known: dict[str, str] = json.loads(known_file.read_text()) if known_file.exists() else {}
    said = []
    for lab in catalog.every().values():
        original, mine = LABS / lab.notebook, work / lab.notebook
        if not mine.exists():
            mine.parent.mkdir(exist_ok=True)
            shutil.copy(original, mine)
            known[lab.notebook] = _digest(original)
            said.append(f"work/{lab.notebook} is yours to work in")
        elif known.get(lab.notebook) != _digest(original):
            said.append(
                f"labs/{lab.notebook} is newer than your copy, which was left as it is; to start over, rename yours and run this again"
            )
    known_file.write_text(json.dumps(known, indent=2) + "\n")
    return said
