"""/v1/models: what can stand in a request's ``model``."""

from typing import Any

from fastapi import APIRouter, Request

from inference_server.errors import RequestError
from inference_server.serving import serving

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models", summary="Text and embedding models, each by name and by name:version")
async def models(request: Request) -> dict[str, Any]:
    """What can stand in a request's ``model``."""
    registry = serving(request).models
    listed: list[dict[str, Any]] = []
    for model in registry.models:
        if model.spec.kind != "predict":
            entry = {
                "object": "model",
                "created": model.spec.created,
                "owned_by": "inference-server",
            }
            names = [model.spec.name, model.spec.id] if registry.is_default(model) else [model.spec.id]
            listed += [{"id": name, **entry, "version": model.spec.version} for name in names]
    return {"object": "list", "data": listed}


@router.get("/models/{model_id}", summary="One text or embedding model")
async def one_model(model_id: str, request: Request) -> dict[str, Any]:
    """The entry of /v1/models with this id."""
    for entry in (await models(request))["data"]:
        if entry["id"] == model_id:
            return dict(entry)
    serving(request).models.text(model_id)  # says what is loaded
    raise RequestError(404, f"The model {model_id!r} is not loaded.", "model_not_found", "model")
