"""An exam for a version: rows whose right answers are known, asked of one pod before anybody rests on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from course_lib.cluster import serving
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.port_forward import forward

#: A row of numbers, and the class that is right.
Row = tuple[Sequence[float], str]
#: The model that is asked.
MODEL = "digits"


@dataclass(frozen=True)
class Marked:
    """How an exam went."""

    right: int
    total: int
    version: str
    """That answered; empty where none did."""
    why: str = ""
    """What was said instead of answers."""

    @property
    def share(self) -> float:
        """Right of all."""
        return self.right / self.total if self.total else 0.0

    def words(self) -> str:
        """It in a line."""
        return f"{self.right} of {self.total} right" if not self.why else self.why


def mark(deployer: Deployer, pod: str, rows: Sequence[Row], key: Mapping[str, str] | None = None) -> Marked:
    """Asks a pod for all rows in one request. One that does not answer, or with something else, has nothing right.

    Args:
        key: headers that open the server; by default the users'.
    """
    body = {"inputs": [list(row) for row, _ in rows], "model": MODEL}
    with forward(deployer.api, deployer.namespace, pod, serving.PORT) as address:
        try:
            answer = httpx.post(
                f"{address}/batch_predict",
                json=body,
                headers=dict(key or serving.headers(deployer)),
                timeout=20,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            return Marked(0, len(rows), "", f"no answer: {str(error) or type(error).__name__}")
    if answer.status_code != 200:
        return Marked(0, len(rows), "", f"answered {answer.status_code}: {answer.text[:120]}")
    said = answer.json()
    given = [one.get("predicted_class") for one in said["predictions"]]
    right = sum(one == label for one, (_, label) in zip(given, rows, strict=True))
    return Marked(right, len(rows), str(said["version"]))
