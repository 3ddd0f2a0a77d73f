"""Errors that a person can cause: each ends in a sentence that says what to do. A traceback is for bugs."""

from typing import Any


class StartError(Exception):
    """The server can't start: a setting, a port or a model is refused. Printed as one sentence, exit code 1."""


class ModelRefused(StartError):
    """A model folder that can't be served, with the reason and the way out."""


class RequestError(Exception):
    """A request that can't be answered; contracts turn it into a reply in OpenAI's error shape.

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

    def at(self, path: str) -> int:
        """The reply's status: protocols with one status for every malformed request have 400, the plain contract says 422."""
        return 400 if self.status == 422 and path.startswith(("/v1/", "/v2/")) else self.status

    def body(self, path: str = "") -> dict[str, Any]:
        """The reply's body: OpenAI's shape, but for the Open Inference Protocol's paths, which have their own."""
        if open_inference(path):
            return {"error": self.message}
        return error_body(self.status, self.message, self.code, self.param)

    def headers(self) -> dict[str, str]:
        """Reply headers that belong to this error."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def body_too_slow(seconds: float) -> RequestError:
    """For a request whose body did not come in within RECEIVE_TIMEOUT_SECONDS."""
    return RequestError(
        408, f"The body was not here after {seconds:g} s: send less at a time, or faster.", "body_too_slow"
    )


def too_late(seconds: float) -> RequestError:
    """For an answer that took longer than REQUEST_TIMEOUT_SECONDS."""
    return RequestError(
        504, f"The answer took longer than {seconds:g} s: ask for less at a time, or come back later.", "timeout"
    )


def open_inference(path: str) -> bool:
    """Whether this path is one of the Open Inference Protocol's."""
    return path == "/v2" or path.startswith("/v2/")


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error shape: ``{"error": {"message", "type", "param", "code"}}``."""
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
