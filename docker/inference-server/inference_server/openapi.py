"""The OpenAPI document, made true: this server's limits stand in the schemas, and each route lists the errors it can give."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from inference_server.access import key_wanted
from inference_server.answers import STOPS, Parameters
from inference_server.contracts.oip import InferRequest
from inference_server.contracts.openai.chat import ChatRequest
from inference_server.contracts.openai.completions import CompletionRequest
from inference_server.contracts.responses import ERROR, SENTENCE, errors
from inference_server.errors import RequestError, open_inference
from inference_server.registry import EmbedModel
from inference_server.serving import Serving

READ = (500, 503)
NAMED = (422, 404)  # where the path names a model
ASKED = (400, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504)
GENERATED = {"HTTPValidationError", "ValidationError"}  # FastAPI's own shape, which no reply here has
KEY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
REF = "#/components/schemas/{model}"


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
            given = ASKED if method == "post" else READ + NAMED if "{" in path else READ
            statuses = {RequestError(status, "", "").at(path) for status in given}
            if key_wanted(serving, path):
                statuses.add(401)
                operation["security"] = [{name: []} for name in KEY]
            shape = SENTENCE if open_inference(path) else ERROR
            for status, response in errors(*sorted(statuses), shape=shape).items():
                responses.setdefault(str(status), response)
            for parameter in operation.get("parameters", []):
                _exemplify(parameter, serving)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in GENERATED:
        schemas.pop(name, None)
    # Bodies that come in several media types are read by hand: FastAPI knows nothing of them.
    by_hand = models_json_schema([(InferRequest, "validation"), (Parameters, "validation")], ref_template=REF)
    schemas |= by_hand[1]["$defs"]
    if serving.keys.wanted:
        components["securitySchemes"] = KEY
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


def _exemplify(parameter: dict[str, Any], serving: Serving) -> None:
    """What stands in a path: a model that is loaded."""
    models = serving.loaded.models if serving.loaded else []
    first = next((model.spec for model in models if not isinstance(model, EmbedModel)), None)
    known = {"name": first.name, "version": first.version, "model_id": models[-1].spec.id} if first else {}
    if parameter["in"] == "path" and parameter["name"] in known:
        parameter["example"] = known[parameter["name"]]


def _limit(properties: dict[str, Any], name: str, most: int) -> None:
    for choice in properties.get(name, {}).get("anyOf", []):
        if choice.get("type") == "integer":
            choice["maximum"] = most
