"""Errors that a person can cause: each ends in a sentence that says what to do. A traceback is for bugs."""

from typing import Any


class StartError(Exception):
    """A command can't do its work: a setting, a port or a file is refused. Printed as one sentence, exit code 1."""


class RequestError(Exception):
    """A request that can't be answered; the app turns it into a reply in OpenAI's error shape.

    Args:
        status: HTTP status code.
        message: the sentence a client sees.
        code: a short word for programs, such as ``body_too_large``.
        param: the request field at fault, when there is one.
        retry_after: seconds after which the same request may work.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        kind = "invalid_request_error" if 400 <= self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Reply headers that belong to this error."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class DependencyDown(RequestError):
    """A service this one needs gives no answer: 503 with its name.

    Args:
        dependency: ``chroma`` or ``inference``.
        why: what happened, in a few words.
        retry_after: seconds that the dependency itself asked for, else 2.
    """

    def __init__(self, dependency: str, why: str, retry_after: int = 2) -> None:
        message = f"{dependency} gives no answer ({why}): try again soon; if it stays so, see whether {dependency} runs and what its log says."
        super().__init__(503, message, f"{dependency}_down", retry_after=retry_after)
        self.dependency = dependency


class Refused(Exception):
    """A dependency that lives refuses what it was asked (a 4xx).

    Args:
        dependency: ``chroma`` or ``inference``.
        status: its HTTP status.
        reason: its own sentence, cut to a few hundred characters.
    """

    def __init__(self, dependency: str, status: int, reason: str) -> None:
        super().__init__(f"{dependency} refuses it (status {status}): {reason}")
        self.dependency = dependency
        self.status = status
        self.reason = reason


def nothing_ingested() -> RequestError:
    """For a question while there are no documents."""
    return RequestError(
        409, 'There are no documents to answer from: POST /documents {"source", "text"} first.', "nothing_ingested"
    )
