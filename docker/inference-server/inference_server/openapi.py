"""The OpenAPI document, made true: this server's limits stand in the schemas, and each route lists the errors it can give."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from inference_server.contracts.openai.chat import ChatRequest
from inference_server.contracts.openai.completions import CompletionRequest
from inference_server.contracts.openai.shapes import STOPS, errors
from inference_server.registry import EmbedModel
from inference_server.serving import Serving

READ = (500, 503)
ASKED = (400, 404, 413, 415, 422, 429, 500, 503, 504)
GENERATED = {"HTTPValidationError", "ValidationError"}  # FastAPI's own shape, which no reply here has


def document(app: FastAPI, serving: Serving) -> dict[str, Any]:
    """What replaces ``app.openapi``; made each time, because models come and go."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    settings = serving.settings
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            refused = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if str(refused.get("$ref", "")).rpartition("/")[2] in GENERATED:
                del responses["422"]
            statuses = set(ASKED if method == "post" else READ)
            if path.startswith("/v1/"):
                statuses.discard(422)
            if serving.keys.wanted:
                statuses.add(401)
                operation["security"] = [{"bearer": []}]
            for status, response in errors(*sorted(statuses)).items():
                responses.setdefault(str(status), response)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in GENERATED:
        schemas.pop(name, None)
    if serving.keys.wanted:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for model in (ChatRequest, CompletionRequest):
        properties = schemas[model.__name__]["properties"]
        _limit(properties, "n", settings.slots)
        _limit(properties, "max_tokens", settings.max_new_tokens)
        _limit(properties, "max_completion_tokens", settings.max_new_tokens)
        for choice in properties["stop"]["anyOf"]:
            if choice.get("type") == "array":
                choice["maxItems"] = STOPS
        for choice in properties["logit_bias"]["anyOf"]:
            if choice.get("type") == "object":
                choice["additionalProperties"] = False
        for name, (harmless, instead) in model.unsupported.items():
            properties[name] = {"enum": [*harmless, None], "description": f"Not supported: {instead}."}
    if serving.loaded:
        widths = [model.engine.dimensions for model in serving.loaded.models if isinstance(model, EmbedModel)]
        _limit(schemas["EmbeddingRequest"]["properties"], "dimensions", max(widths, default=1))
    return schema


def _limit(properties: dict[str, Any], name: str, most: int) -> None:
    for choice in properties.get(name, {}).get("anyOf", []):
        if choice.get("type") == "integer":
            choice["maximum"] = most
