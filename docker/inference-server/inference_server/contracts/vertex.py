"""Vertex AI's contract: the routes and the shape its containers have to answer with.

After https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. Vertex says by AIP_HEALTH_ROUTE and
AIP_PREDICT_ROUTE where it will ask; without them the routes are /vertex/health and /vertex/predict.
"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from inference_server.contracts import media
from inference_server.contracts.instances import BODY, answer_body, answer_many, instances_of, parameters_of
from inference_server.contracts.responses import EVENT, UNWELL, answered_as
from inference_server.errors import RequestError
from inference_server.serving import serving
from inference_server.settings import Settings

ASKED = {"required": True, "content": {"application/json": {"schema": BODY}}}
ANSWERED = answered_as({"application/json": {}, "text/event-stream": EVENT})


def routes(settings: Settings) -> APIRouter:
    """The router for these settings; it goes before the others, because Vertex may ask for a path that they have, too."""
    router = APIRouter(tags=["vertex"])
    router.add_api_route(
        settings.aip_health_route or "/vertex/health",
        health,
        methods=["GET"],
        summary="Vertex AI's health check: 200 when work may be sent",
        responses=UNWELL,
    )
    router.add_api_route(
        settings.aip_predict_route or "/vertex/predict",
        predict,
        methods=["POST"],
        summary="Vertex AI's predict route",
        openapi_extra={"requestBody": ASKED},
        responses=ANSWERED,
    )
    return router


async def health(request: Request) -> JSONResponse:
    """Vertex sends requests once this is 200."""
    status = serving(request).trouble()
    return JSONResponse({"status": status or "ok"}, 503 if status else 200)


async def predict(request: Request) -> Response:
    """``{"instances": […], "parameters": {…}}`` in, ``{"predictions": […]}`` out, one for each instance and in order.

    An instance that is bad has ``{"error": …}`` in its place, so that it does not spoil the others. Vertex's rawPredict passes any
    body through: a chat or ``inputs`` are answered, too.
    """
    kind, charset = media.content_type(request)
    if not media.is_json(kind):
        raise RequestError(415, f"The body came as {kind[:80]}: send application/json.", "unsupported_media_type")
    body: Any = media.parsed(media.decoded(await request.body(), charset))
    if not isinstance(body, dict):
        raise RequestError(422, 'The body is a JSON object, such as {"instances": [[0, 5, …]]}.', "bad_request")
    if "instances" not in body:
        return await answer_body(request, body, {})
    parameters = parameters_of(body, {})
    return JSONResponse({"predictions": await answer_many(request, instances_of(body), parameters, "instances")})
