"""Two images side by side: how large, made of what, and how quickly rebuilt."""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.errors import CourseError
from course_lib.images import inspection
from course_lib.images.buildkit import shorten
from course_lib.lab.steps import record

MB = 1_000_000


@dataclass(frozen=True)
class Comparison:
    """A before and an after."""

    before: str
    after: str
    before_layers: tuple[inspection.Layer, ...]
    after_layers: tuple[inspection.Layer, ...]

    @property
    def before_bytes(self) -> int:
        return inspection.size(self.before)

    @property
    def after_bytes(self) -> int:
        return inspection.size(self.after)

    @property
    def ratio(self) -> float:
        """Size after by size before."""
        return self.after_bytes / self.before_bytes

    def rows(self, which: str) -> list[dict[str, object]]:
        """A table of an image's layers that hold something, largest first."""
        layers = self.before_layers if which == "before" else self.after_layers
        kept = sorted((layer for layer in layers if layer.size > 0), key=lambda layer: -layer.size)
        return [{"MB": f"{layer.size / MB:,.1f}", "instruction": shorten(layer.instruction, 96)} for layer in kept]


def compare(before: str, after: str) -> Comparison:
    """Reads both images' histories from the engine.

    Raises:
        CourseError: one of them is not there, or the second is not smaller.
    """
    found = Comparison(before, after, tuple(inspection.layers(before)), tuple(inspection.layers(after)))
    for reference, size in ((before, found.before_bytes), (after, found.after_bytes)):
        record(
            "image.size", "docker", reference, megabytes=round(size / MB, 1), layers=len(inspection.layers(reference))
        )
    if found.ratio >= 1:
        raise CourseError(
            f"{after} is not smaller than {before}",
            why=f"{found.after_bytes / MB:.0f} MB against {found.before_bytes / MB:.0f} MB",
            do="Look at the largest layers of the second: what of them does running need?",
        )
    record(
        "images.compared",
        "docker",
        after,
        against=before,
        ratio=round(found.ratio, 3),
        saved_megabytes=round((found.before_bytes - found.after_bytes) / MB),
    )
    return found
