"""What replies look like in the OpenAPI document, for the routes to say and ``openapi.document`` to complete."""

from typing import Any

Json = dict[str, Any]
ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
SENTENCE: Json = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
EVENT: Json = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
MEANINGS = {
    400: "The request is wrong; the message says where.",
    401: "An API key is missing or unknown.",
    404: "No such model.",
    406: "Accept asks for none of the forms that the answer can have.",
    408: "The body took too long to come in.",
    413: "The body or the batch is too large.",
    415: "The body is of a type that is not read here.",
    422: "The request is wrong; the message says where.",
    429: "The queue is full; Retry-After says when to come back.",
    500: "The server's fault.",
    502: "The model runs on another server, and that one failed.",
    503: "Loading, draining or unwell.",
    504: "It took longer than it may.",
}
# Of health checks, in place of the shape that errors have elsewhere.
UNWELL: dict[int | str, Json] = {503: {"description": "No; the body says why, in the shape of 200."}}


def errors(*statuses: int, shape: Json = ERROR) -> dict[int | str, Json]:
    """OpenAPI's ``responses`` for errors, all of one shape."""
    return {
        status: {"description": MEANINGS[status], "content": {"application/json": {"schema": shape}}}
        for status in statuses
    }


def answered_as(schemas: dict[str, Json]) -> dict[int | str, Json]:
    """A 200 in several media types, each with the schema of its body."""
    return {200: {"description": "The answer", "content": {kind: {"schema": one} for kind, one in schemas.items()}}}
