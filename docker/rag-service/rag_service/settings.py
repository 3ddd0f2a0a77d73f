"""Settings from the environment: one table, read once at the start, wrong values refused in a sentence."""

import os
from collections.abc import Mapping
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rag_service.errors import StartError


class Settings(BaseModel):
    """Everything a person can set. The environment variable is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on; the probe in the image follows it.")
    chroma_url: str = Field("http://chroma:8000", description="Where Chroma answers.")
    collection: str = Field(
        "course",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{1,40}[A-Za-z0-9]",
        description="Chroma's collection for the documents.",
    )
    inference_url: str = Field(
        "http://proxy:8081/v1", description="Where the model answers by OpenAI's protocol; mostly ends in `/v1`."
    )
    inference_key_file: str = Field("", description="File with the API key for it; read at every request.")
    embeddings_url: str = Field("", description="Where the embedder answers, if elsewhere; empty: INFERENCE_URL.")
    embeddings_model: str = Field("embedder", min_length=1, description="Its name there.")
    chat_model: str = Field("tutor", min_length=1, description="Name of the model that answers.")
    answer_mode: Literal["extractive", "generative"] = Field(
        "extractive",
        description="`extractive`: only what stands in a passage. `generative`: what the model says, with [n].",
    )
    answer_tokens: int = Field(160, ge=1, le=100_000, description="Most tokens an answer of the model may have.")
    prompt_characters: int = Field(
        2000, ge=100, le=10_000_000, description="Most characters of passages in a prompt; those beyond are left out."
    )
    chunk_characters: int = Field(300, ge=100, le=20_000, description="Longest passage that a document is cut into.")
    chunk_overlap: int = Field(0, ge=0, le=10_000, description="Characters that two passages may share.")
    top_k: int = Field(3, ge=1, le=20, description="Passages for a request that does not say `k`.")
    vector_weight: float = Field(
        0.6, ge=0, le=1, description="What vectors count for against words: 1 is vectors alone, 0 words alone."
    )
    least_similarity: float = Field(
        0.2,
        ge=-1,
        le=1,
        description="Cosine of the nearest passage below which there is no answer; another embedder needs another.",
    )
    hnsw_space: Literal["cosine", "l2", "ip"] = Field(
        "cosine", description="Distance of Chroma's index. The HNSW settings count when the collection is made."
    )
    hnsw_ef_construction: int = Field(100, ge=1, le=10_000, description="Candidates looked at while it is built.")
    hnsw_ef_search: int = Field(100, ge=1, le=10_000, description="Candidates looked at in a search.")
    hnsw_max_neighbors: int = Field(16, ge=2, le=1000, description="Links that a passage has in it.")
    cache_url: str = Field("", description="Redis for answers, such as `redis://cache:6379/0`; empty: none.")
    cache_password_file: str = Field("", description="File with its password; read at every connection.")
    cache_seconds: int = Field(300, ge=1, le=31_536_000, description="How long an answer is kept there.")
    cache_timeout_seconds: float = Field(
        0.25,
        ge=0.01,
        le=5,
        description="Longest wait for Redis, at each question; then the answer is made without it.",
    )
    otel_exporter_otlp_endpoint: str = Field(
        "", description="OpenTelemetry collector that gets spans, by OTLP/HTTP; such as `http://traces:4318`."
    )
    otel_service_name: str = Field("rag", min_length=1, description="Name of this service in those spans.")
    max_body_bytes: int = Field(1_048_576, ge=1, description="Largest request body; above it 413.")
    timeout_seconds: float = Field(
        30.0,
        ge=0.1,
        le=3600,
        description="Longest wait for a request's body, and for each answer of Chroma or inference.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important lines to log.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("chroma_url", "inference_url", "embeddings_url", "otel_exporter_otlp_endpoint"):
            _check_address(name.upper(), getattr(self, name), ("http", "https"), "http://host:8000")
        _check_address("CACHE_URL", self.cache_url, ("redis", "rediss"), "redis://cache:6379/0")
        if self.chunk_overlap * 2 > self.chunk_characters:
            raise StartError(
                f"CHUNK_OVERLAP={self.chunk_overlap} is more than half of CHUNK_CHARACTERS={self.chunk_characters}: lower it."
            )
        return self


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment; an empty variable counts as not set, but for CACHE_URL's kind, where both mean none.

    Raises StartError with a sentence.
    """
    source = os.environ if environment is None else environment
    given = {name: text for name in Settings.model_fields if (text := source.get(name.upper(), "").strip())}
    try:
        return Settings.model_validate(given)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = str(first["loc"][0])
        raise StartError(
            f"{name.upper()}={given[name]} can't be used: {first['msg'][0].lower()}{first['msg'][1:]}."
        ) from None


def as_markdown() -> str:
    """The table above for people, so that no page can say anything else than the code."""
    properties = Settings.model_json_schema()["properties"]
    rows = []
    for name, rule in properties.items():
        default = f"`{rule['default']}`" if rule["default"] != "" else "none"
        low, high = rule.get("minimum"), rule.get("maximum")
        if "enum" in rule:
            allowed = "one of " + ", ".join(f"`{word}`" for word in rule["enum"])
        else:
            kind = {"integer": "whole number", "number": "number", "string": "text"}[rule["type"]]
            bounds = "" if low is None else f", at least {low}" if high is None else f", from {low} to {high}"
            allowed = kind + bounds
        rows.append(f"| `{name.upper()}` | {default} | {allowed} | {rule['description']} |")
    return "\n".join(("| variable | default | may be | what it does |", "|---|---|---|---|", *rows))


def _check_address(name: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    """Raises StartError where this is no plain address; it may hold a password, so it is not repeated."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good:
        raise StartError(f"{name} is no plain address: write one such as {example}, and secrets into files.")
