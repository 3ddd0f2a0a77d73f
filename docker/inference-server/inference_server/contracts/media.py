"""Media types: what a body is (Content-Type), what its reader wants (Accept), and bytes to JSON.

After RFC 9110, sections 8.3 and 12.5.1. Every error is a RequestError.
"""

import json
from email.message import Message
from typing import Any

from starlette.requests import Request

from inference_server.errors import RequestError

# Charsets a body may name. Python knows more, and some of those take quadratic time or are no charsets at all.
CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8-sig"),  # a byte order mark, as Excel writes it, is no data
    **dict.fromkeys(("us-ascii", "ascii"), "ascii"),
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1"), "latin-1"),
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}


def content_type(request: Request, default: str = "application/json") -> tuple[str, str]:
    """(media type in lower case, Python's name of the charset). Raises 415 for a charset nobody here reads."""
    header = Message()
    header["Content-Type"] = request.headers.get("content-type") or default
    charset = str(header.get_param("charset") or "utf-8").lower()
    if charset not in CHARSETS:
        raise RequestError(415, f"The charset {charset[:40]!r} is not read here: send UTF-8.", "bad_charset")
    return header.get_content_type(), CHARSETS[charset]


def accepted(request: Request, offered: tuple[str, ...]) -> str:
    """The offered type that Accept likes best, the first one among equals. Raises 406 with a sentence."""
    ranges = [_range(part) for part in request.headers.get("accept", "").split(",") if part.strip()]
    if not ranges:
        return offered[0]

    def liking(media: str) -> float:
        """The q of the most exact range that covers this type."""
        levels = (media, f"{media.partition('/')[0]}/*", "*/*")
        return next((q for level in levels for name, q in ranges if name == level), 0.0)

    best = max(offered, key=liking)
    if liking(best) <= 0:
        raise RequestError(
            406,
            f"This request can be answered as {' or '.join(offered)}, and Accept asks for none of these.",
            "not_acceptable",
        )
    return best


def _range(part: str) -> tuple[str, float]:
    """One media range of Accept with its q; a q that is no number counts as 1."""
    name, *parameters = part.split(";")
    q = next((p.partition("=")[2] for p in parameters if p.partition("=")[0].strip().lower() == "q"), "1")
    try:
        return name.strip().lower(), float(q)
    except ValueError:
        return name.strip().lower(), 1.0


def is_json(media: str) -> bool:
    """application/json and its relatives (``+json``)."""
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def decoded(raw: bytes, charset: str = "utf-8") -> str:
    """The body as text. Raises 400."""
    try:
        return raw.decode(charset)
    except UnicodeError:
        raise RequestError(
            400, f"The body can't be read as {charset.removesuffix('-sig').upper()}.", "bad_text"
        ) from None


def parsed(text: str | bytes, what: str = "The body") -> Any:
    """JSON as Python values. Raises 400 for what is nested too deep or no UTF-8, 422 for what is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise RequestError(400, f"{what} is nested too deep.", "bad_json") from None
    except UnicodeDecodeError:
        raise RequestError(400, f"{what} can't be read as JSON in UTF-8.", "bad_json") from None
    except ValueError as error:
        raise RequestError(422, f"{what} is not JSON: {error}.", "bad_json") from None
