"""SageMaker's contract: GET /ping and POST /invocations, and /execution-parameters for batch transform.

After https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html.
"""

import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from inference_server.answers import Parameters, number
from inference_server.contracts import media
from inference_server.contracts.instances import answer_body, answer_many, instances_of
from inference_server.errors import RequestError
from inference_server.serving import serving

router = APIRouter(tags=["sagemaker"])
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
LINE_TYPES = (LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson")
BODY = {
    "required": True,
    "content": {
        JSON: {"schema": {"type": "object"}, "example": {"instances": [[0] * 64]}},
        LINES: {"schema": {"type": "string"}},
        CSV: {"schema": {"type": "string"}},
    },
}


@router.get("/ping", summary="SageMaker's health check: 200 when work may be sent, else 503")
async def ping(request: Request) -> JSONResponse:
    """SageMaker restarts a container that answers anything but 200, and waits for the first one while it starts."""
    status = serving(request).trouble()
    return JSONResponse({"status": status or "ok"}, 503 if status else 200)


@router.get("/execution-parameters", summary="How batch transform may send")
async def execution_parameters(request: Request) -> dict[str, Any]:
    """Many records a request, and as many requests at once as the engine runs together."""
    settings = serving(request).settings
    megabytes = max(1, settings.max_body_bytes // 1_048_576)
    return {
        "MaxConcurrentTransforms": settings.slots,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": megabytes,
    }


@router.post("/invocations", summary="SageMaker's inference route", openapi_extra={"requestBody": BODY})
async def invocations(request: Request) -> Response:
    """JSON, JSON lines or CSV in; the same or another of them out, by Content-Type and Accept."""
    attributes = request.headers.get(ATTRIBUTES, "")
    named = parameters_in(attributes)
    kind, charset = media.content_type(request)
    raw = await request.body()
    if media.is_json(kind):
        reply = await _json(request, media.parsed(media.decoded(raw, charset)), named)
    elif kind in LINE_TYPES:
        reply = await _lines(request, media.decoded(raw, charset), named)
    elif kind == CSV:
        reply = await _csv(request, media.decoded(raw, charset), named)
    else:
        raise RequestError(
            415,
            f"The body came as {kind[:80]}: send {JSON}, {LINES} or {CSV} and say so in Content-Type.",
            "unsupported_media_type",
        )
    model = request.state.model
    # SageMaker hands on this one header and no other of ours: it comes back as it was sent, or says who answered.
    reply.headers[ATTRIBUTES] = attributes if _visible(attributes) else f"model={model.name},version={model.version}"
    return reply


async def _json(request: Request, body: Any, named: dict[str, Any]) -> Response:
    if not isinstance(body, dict):
        raise RequestError(422, 'The body is a JSON object, such as {"instances": [[0, 5, …]]}.', "bad_request")
    if "instances" in body:
        wanted = media.accepted(request, (JSON, LINES, CSV))
        given = body.get("parameters")
        parameters = Parameters.read(
            {**named, **given} if isinstance(given, dict) else named if given is None else given
        )
        return _reply(wanted, await answer_many(request, instances_of(body), parameters, "instances"))
    media.accepted(request, (JSON, "text/event-stream") if body.get("stream") else (JSON,))
    return await answer_body(request, body, named)


async def _lines(request: Request, text: str, named: dict[str, Any]) -> Response:
    """A row or a text a line; a line that is no JSON gets its own error, and every line its answer."""
    wanted = media.accepted(request, (LINES, JSON, CSV))
    lines = text.split("\n")
    if not lines[-1].strip():
        lines.pop()
    items: list[Any] = []
    broken: dict[int, dict[str, Any]] = {}
    for index, line in enumerate(lines):
        try:
            items.append(media.parsed(line, f"Line {index + 1}"))
        except RequestError as error:
            broken[index] = error.body()
            items.append(None)
    answers = await answer_many(request, items, Parameters.read(named), "lines")
    return _reply(wanted, [{**answer, **broken.get(index, {})} for index, answer in enumerate(answers)])


async def _csv(request: Request, text: str, named: dict[str, Any]) -> Response:
    """A row of numbers a line, under a header or not."""
    wanted = media.accepted(request, (JSON, CSV, LINES))
    parameters = Parameters.read(named)
    if (
        serving(request).models.answerer(None if parameters.model else "predict", parameters.model).spec.kind
        != "predict"
    ):
        raise RequestError(
            415, f"{CSV} holds rows of numbers for a classifier: send texts as {LINES}.", "unsupported_media_type"
        )
    return _reply(wanted, await answer_many(request, rows_of(text), parameters, "lines"))


def rows_of(text: str) -> list[Any]:
    """CSV as rows of numbers; a cell that is no number stays text, so that the engine can say so. Raises 422.

    The first line is a header when no cell of it is a number.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    except csv.Error as error:
        raise RequestError(422, f"The body can't be read as CSV: {error}.", "bad_csv") from None
    rows: list[Any] = [[number(cell) for cell in line] for line in lines]
    if rows and all(isinstance(cell, str) for cell in rows[0]):
        rows.pop(0)
    return rows


def _reply(wanted: str, answers: list[dict[str, Any]]) -> Response:
    """Answers in the form that is wanted. Raises 406 or 422 where CSV has no room for them."""
    if wanted == JSON:
        return JSONResponse({"predictions": answers})
    if wanted == LINES:
        lines = (json.dumps(answer, ensure_ascii=False, separators=(",", ":")) for answer in answers)
        return Response("".join(f"{line}\n" for line in lines), media_type=LINES)
    return Response(_as_csv(answers), media_type=CSV)


def _as_csv(answers: list[dict[str, Any]]) -> str:
    """``label,confidence`` a line. A line that failed would look like an answer, so there is none then."""
    failed = [index + 1 for index, answer in enumerate(answers) if "error" in answer]
    if failed:
        first = answers[failed[0] - 1]["error"]["message"]
        raise RequestError(
            422,
            f"Item {failed[0]}: {first} ({len(failed)} of {len(answers)} failed; with Accept: {LINES} the others get their answers.)",
            "bad_row",
        )
    if any("predicted_class" not in answer for answer in answers):
        raise RequestError(406, f"Texts are answered as {LINES} or {JSON}, not as {CSV}.", "not_acceptable")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        (answer["predicted_class"], answer["confidence"]) for answer in answers
    )
    return out.getvalue()


def parameters_in(attributes: str) -> dict[str, str]:
    """``model=digits,version=1`` in the custom attributes; whatever else stands there is the client's own."""
    pairs: Iterable[tuple[str, str, str]] = (part.partition("=") for part in re.split("[,;]", attributes))
    known = ("model", "version", "max_tokens", "temperature", "seed")
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in known and value.strip()}


def _visible(text: str) -> bool:
    """What AWS allows in this header: visible ASCII, 1,024 characters at most."""
    return bool(re.fullmatch(r"[\x20-\x7e]{1,1024}", text))
