"""The one kind of error a learner is meant to read: what happened, why, and what to do."""

from __future__ import annotations

from types import TracebackType


class CourseError(Exception):
    """An error that a learner, an instructor or the machine caused, told in sentences.

    Anything else that escapes is a bug and keeps its traceback.

    Args:
        what: what happened, one sentence without a full stop.
        why: what was seen that explains it; may hold several lines (log lines, say).
        do: what to do about it, an imperative sentence.
        passing: whether the same may well succeed a little later: who waits goes on then.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", passing: bool = False) -> None:
        super().__init__(what)
        self.what, self.why, self.do, self.passing = what, why, do, passing

    def __str__(self) -> str:
        text = self.what if self.what.endswith((".", "?", "!")) else self.what + "."
        if self.why:
            text += f"\n{self.why.rstrip()}"
        if self.do:
            text += f"\n-> {self.do}"
        return text

    def _render_traceback_(
        self,
        etype: type[BaseException] | None = None,
        value: BaseException | None = None,
        tb: TracebackType | None = None,
        tb_offset: int | None = None,
    ) -> list[str]:
        """IPython's hook: in a notebook these errors read as sentences; a traceback is for bugs."""
        return [f"{type(self).__name__}: {self}"]
