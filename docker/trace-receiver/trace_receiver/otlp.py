"""OTLP/HTTP: requests as protobuf or JSON into spans, and the answers that its specification asks for.

After https://opentelemetry.io/docs/specs/otlp/#otlphttp. In OTLP's JSON ids are hexadecimal, which protobuf's own JSON would take for base64.
"""

import base64
import json
import zlib
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from trace_receiver.spans import MOST_NAME, MOST_TEXT, Kind, Span, Status, Value, attributes, cut

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
UNKNOWN_SERVICE = "unknown_service"  # the specification's word
RPC_CODES = {400: 3, 408: 4, 413: 8, 415: 3}  # INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED

KINDS = {int(kind): kind for kind in Kind}
STATUSES = {int(status): status for status in Status}


class Refused(Exception):
    """A request that is not taken at all.

    Args:
        status: HTTP status.
        message: what the sender should do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """A body without its Content-Encoding. Raises Refused: 415 for one that is not gzip, 413 for more than ``most`` bytes, 400."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise Refused(415, f"Content-Encoding {encoding[:40]!r} is not taken: send gzip or none.")
    unzip = zlib.decompressobj(wbits=31)
    try:
        whole = unzip.decompress(body, most + 1)
    except zlib.error:
        raise Refused(400, "The body is not what its Content-Encoding says: gzip.") from None
    if len(whole) > most:
        raise Refused(413, f"The body is larger than {most:,} bytes when unpacked: send fewer spans at a time.")
    if not unzip.eof:
        raise Refused(400, "The body ends before its gzip stream does.")
    return whole


def read(body: bytes, content_type: str) -> tuple[list[Span], int]:
    """The good spans of an ExportTraceServiceRequest, and how many are bad: without valid ids.

    Raises:
        Refused: 415 for another Content-Type, 400 for a body that is no such request.
    """
    if content_type not in (PROTOBUF, JSON):
        raise Refused(415, f"Content-Type {content_type[:60]!r} is not taken: send {PROTOBUF} or {JSON}.")
    request = ExportTraceServiceRequest()
    try:
        if content_type == PROTOBUF:
            request.ParseFromString(body)
        else:
            json_format.ParseDict(_with_base64_ids(json.loads(body)), request, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refused(400, f"The body is no ExportTraceServiceRequest: {reason}") from None
    good: list[Span] = []
    bad = 0
    for resource in request.resource_spans:
        service = _service(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) == 16 and len(span.span_id) == 8 and any(span.trace_id) and any(span.span_id):
                    good.append(_span(span, service))
                else:
                    bad += 1
    return good, bad


def accepted(bad: int, content_type: str) -> bytes:
    """The answer to a request that was taken, in its own encoding; a partial success where ``bad`` spans were not."""
    reply = ExportTraceServiceResponse()
    if bad:
        reply.partial_success.rejected_spans = bad
        reply.partial_success.error_message = "a trace id has 16 bytes and a span id 8, and neither is all zeroes"
    return _encode(reply, content_type)


def refusal(error: Refused, content_type: str) -> bytes:
    """The answer to one that was not: google.rpc.Status, in the request's encoding, else JSON."""
    return _encode(RpcStatus(code=RPC_CODES.get(error.status, 2), message=str(error)), content_type)


def _encode(message: Message, content_type: str) -> bytes:
    if content_type == PROTOBUF:
        return message.SerializeToString()
    return json.dumps(json_format.MessageToDict(message)).encode()


def _with_base64_ids(body: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON as protobuf's. An id that is no hexadecimal becomes an empty one, and its span a rejected one."""
    for resource in body.get("resourceSpans") or []:
        for scope in resource.get("scopeSpans") or []:
            for span in scope.get("spans") or []:
                span.pop("links", None)  # nothing here shows them, and they hold ids, too
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = _base64(span[name])
    return body


def _base64(text: object) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text if isinstance(text, str) else "")).decode()
    except ValueError:
        return ""


def _service(resource: Any) -> str:
    for pair in resource:
        if pair.key == "service.name":
            return cut(str(_value(pair.value)), MOST_NAME) or UNKNOWN_SERVICE
    return UNKNOWN_SERVICE


def _span(span: SpanMessage, service: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex() if len(span.parent_span_id) == 8 and any(span.parent_span_id) else "",
        service=service,
        name=cut(span.name, MOST_NAME),
        kind=KINDS.get(span.kind, Kind.UNSPECIFIED),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=STATUSES.get(span.status.code, Status.UNSET),
        message=cut(span.status.message),
        attributes=attributes((pair.key, _value(pair.value)) for pair in span.attributes),
    )


def _value(value: AnyValue) -> Value:
    """A plain value as it is, a list or map as JSON-like text."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case None:
            return ""
        case _:
            return _text(value)


def _text(value: AnyValue | KeyValue) -> str:
    return cut(" ".join(str(value)[: 4 * MOST_TEXT].split()))
