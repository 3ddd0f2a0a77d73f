"""For those who operate: /health (is it alive), /ready (send it work?), /metrics, /models, and the chat page at /."""

import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from inference_server import __version__
from inference_server.contracts.responses import UNWELL
from inference_server.serving import Phase, serving

router = APIRouter(tags=["operations"])
PAGE = (Path(__file__).resolve().parent.parent / "static" / "chat.html").read_text(encoding="utf-8")
# Nothing on the page comes from elsewhere, and nothing elsewhere is told about it.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'"


@router.get("/health", summary="Alive: 503 when a model's loop is dead or stuck", responses=UNWELL)
async def health(request: Request) -> JSONResponse:
    """Liveness. Loading and draining are healthy: restarting a server for them would only lose time."""
    state = serving(request)
    unwell = state.loaded.unwell() if state.loaded else []
    body: dict[str, Any] = {
        "status": "failing" if unwell else "ok",
        "phase": state.phase,
        "server_version": __version__,
        "uptime_seconds": round(time.monotonic() - state.started, 1),
    }
    if unwell:
        body["problems"] = unwell
    return JSONResponse(body, 503 if unwell else 200)


@router.get("/ready", summary="Ready for work: 503 while loading, draining or unwell", responses=UNWELL)
async def ready(request: Request) -> JSONResponse:
    """Readiness."""
    state = serving(request)
    unwell = [*state.loaded.unwell(), *state.loaded.away()] if state.loaded else []
    well = state.phase is Phase.READY and not unwell
    models = [model.spec.id for model in state.loaded.models] if state.loaded else []
    body: dict[str, Any] = {"ready": well, "phase": state.phase, "models": models}
    if state.waiting_for:
        body["waiting_for"] = state.waiting_for
    if unwell:
        body["problems"] = unwell
    return JSONResponse(body, 200 if well else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Everything counted so far, and how busy each model is at this moment."""
    state = serving(request)
    for model in state.loaded.models if state.loaded else []:
        vitals = model.engine.vitals()
        state.metrics.running.labels(*model.labels).set(vitals.running)
        state.metrics.waiting.labels(*model.labels).set(vitals.waiting)
    return Response(generate_latest(state.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/models", summary="Loaded models with their versions and cards")
async def models(request: Request) -> dict[str, Any]:
    """Every loaded version; ``card`` is the model's own model.json."""
    registry = serving(request).models
    return {
        "models": [
            {
                "id": model.spec.id,
                "name": model.spec.name,
                "version": model.spec.version,
                "kind": model.spec.kind,
                "engine": model.spec.engine,
                "default_version": registry.is_default(model),
                "traffic_share": registry.share(model),
                "card": model.spec.card,
            }
            for model in registry.models
        ]
    }


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """A small chat page, for people who come by browser."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"})
