"""Settings from the environment: one table, read once at the start, wrong values refused in a sentence."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inference_server.errors import StartError

ROUTE = re.compile(r"/[A-Za-z0-9._~:@!$&'()*+,;=%/-]*")


def _setting(
    default: str | int | float,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[str, ...] = (),
    secret: bool = False,
    unset: str = "none",
) -> Any:
    """A dataclass field with what the reader below needs to check it; one that is ``secret`` is never printed."""
    rule = {"text": text, "low": low, "high": high, "one_of": one_of, "unset": unset}
    return field(default=default, repr=not secret, metadata=rule)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set. The environment variable is the field's name in capitals."""

    host: str = _setting("0.0.0.0", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; `inference-server health` follows it.", low=1, high=65535)
    grpc_port: int = _setting(
        0, "Port for the Open Inference Protocol over gRPC, 8081 by KServe's custom; 0: off.", low=0, high=65535
    )
    aip_http_port: int = _setting(
        0, "Vertex AI's name for PORT; where both are set this one counts.", low=0, high=65535
    )
    aip_health_route: str = _setting("", "Vertex AI: a path that answers as `/ready` does.")
    aip_predict_route: str = _setting("", "Vertex AI: a path that answers as `POST /vertex/predict` does.")
    aip_storage_uri: str = _setting("", "Vertex AI: where the model is, as `gs://bucket/folder` or a local folder.")
    model_path: str = _setting(
        "",
        "Folder with the models; README.md says where the server looks without it.",
        unset="the models beside the package",
    )
    engine: str = _setting(
        "auto",
        "Engine for text models: `auto` takes ONNX where a folder has it; with `openai` they run at UPSTREAM_URL.",
        one_of=("auto", "onnx", "transformers", "openai"),
    )
    upstream_url: str = _setting(
        "", "ENGINE=openai: where a server speaks OpenAI's protocol, such as `http://ollama:11434/v1`."
    )
    upstream_model: str = _setting("", "Its name for the model.", unset="the only one it has")
    upstream_key_file: str = _setting("", "File with the key it wants; read again when it changes.")
    upstream_timeout_seconds: float = _setting(60.0, "Longest silence of it before and within an answer.", low=0.1)
    engine_threads: int = _setting(
        0,
        "Threads a model computes with; 0: as many as the container has CPUs, up to 4 for a model of at most 32 MB; for a larger one all, "
        "and from 3 on one less, for HTTP.",
        low=0,
        high=256,
    )
    instances: int = _setting(
        0,
        "Copies of a text model that share these threads, the slots and the queue; 0: one a thread for a model of at most 32 MB, "
        "else one.",
        low=0,
        high=64,
    )
    slots: int = _setting(32, "Texts that one model generates at the same time; others wait.", low=1, high=256)
    prefix_cache_mb: int = _setting(
        32,
        "Memory of a text model for prompts it has read, so that the next ones that begin alike are read from there on; 0: none.",
        low=0,
        high=1_000_000,
    )
    max_queue: int = _setting(256, "Requests that may wait for a slot; one more gets 429.", low=0, high=100_000)
    max_body_bytes: int = _setting(1_048_576, "Largest request body; above it 413.", low=1)
    receive_timeout_seconds: float = _setting(
        30.0,
        "Longest time for a request's head to come in, and for its body; then its connection is closed, a body with 408.",
        low=0.1,
        high=86_400,
    )
    max_prompt_tokens: int = _setting(1024, "Longest prompt, after the chat template; above it 422.", low=1)
    max_new_tokens: int = _setting(512, "Most tokens one answer may ask for; above it 422.", low=1)
    default_new_tokens: int = _setting(256, "Length of an answer when the request does not say.", low=1)
    default_temperature: float = _setting(
        0.0, "Temperature when the request does not say; 0 repeats exactly.", low=0, high=2
    )
    max_batch: int = _setting(256, "Most items in one `/batch_predict`; above it 413.", low=1)
    request_timeout_seconds: float = _setting(
        300.0, "Longest time for one answer, waiting included; then 504, or an error event in a stream.", low=0.1
    )
    api_keys: str = _setting(
        "", "Keys that open the server, with commas between; API_KEYS_FILE hides them better.", secret=True
    )
    api_keys_file: str = _setting("", "File with one key a line; read again when it changes.")
    trusted_proxies: str = _setting("", "Proxies whose X-Forwarded-For is believed: addresses or CIDRs with commas.")
    otel_exporter_otlp_endpoint: str = _setting(
        "", "OpenTelemetry collector that gets a span a request, by OTLP/HTTP; such as `http://collector:4318`."
    )
    otel_service_name: str = _setting("inference-server", "Name of this server in those spans.")
    stall_seconds: float = _setting(10.0, "`/health` fails when a model's loop has not moved for this long.", low=0.1)
    shutdown_delay_seconds: float = _setting(
        0.0,
        "After SIGTERM, time before the drain in which all is answered, each with `Connection: close`, and `/ready` is 503.",
        low=0,
    )
    drain_seconds: float = _setting(8.0, "After SIGTERM, time for running requests; `docker stop` waits 10.", low=0)
    traffic: str = _setting(
        "",
        "Split of requests that name no version, as `tutor:1=90,tutor:2=10`; the first of a model is its default.",
        unset="no split: the highest version",
    )
    traffic_file: str = _setting(
        "", "The same as JSON in a file that may change, such as a mounted ConfigMap.", unset="none"
    )
    reload_seconds: float = _setting(
        0.0,
        "How often MODEL_PATH is looked at for new, changed and removed versions; 0: on SIGHUP only.",
        low=0,
        high=86_400,
    )
    model_wait_seconds: float = _setting(
        0.0,
        "How long the start waits for models that are not there (yet); meanwhile `/ready` is 503.",
        low=0,
        high=86_400,
    )
    log_level: str = _setting("info", "`debug` also logs health probes.", one_of=("debug", "info", "warning", "error"))

    @property
    def model_is_remote(self) -> bool:
        """Whether ``models_folder`` has to fetch the model first."""
        return not self.model_path and self.aip_storage_uri.startswith("gs://")

    def models_folder(self) -> Path:
        """MODEL_PATH, else AIP_STORAGE_URI, else what SageMaker unpacked, else the models that come with the server.

        Raises StartError; a model in a bucket is copied to this machine first, which takes its time.
        """
        if self.model_path:
            return Path(self.model_path)
        if self.aip_storage_uri:
            from inference_server.storage import local_folder  # only Vertex needs it

            return local_folder(self.aip_storage_uri)
        unpacked = sagemaker_model()
        try:
            return unpacked if any(unpacked.iterdir()) else bundled_models()
        except (FileNotFoundError, NotADirectoryError):
            return bundled_models()
        except PermissionError:
            return unpacked  # refused in a sentence by whoever reads it


def sagemaker_model() -> Path:
    """Where SageMaker unpacks model.tar.gz; SAGEMAKER_BASE_DIR moves it, as in AWS's own inference toolkit."""
    return Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"


def bundled_models() -> Path:
    """The ``models/`` folder beside the package, or ``/app/models`` where the package is installed apart from it (the image)."""
    beside = Path(__file__).resolve().parent.parent / "models"
    return beside if beside.is_dir() else Path("/app/models")


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment; an empty variable counts as not set. Raises StartError with a sentence."""
    source = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    for item in fields(Settings):
        text = source.get(item.name.upper(), "").strip()
        if text:
            given[item.name] = _convert(item.name.upper(), text, type(item.default), item.metadata)
    settings = Settings(**given)
    for name in ("aip_health_route", "aip_predict_route"):
        route = getattr(settings, name)
        if route and not ROUTE.fullmatch(route):
            raise StartError(f"{name.upper()}={route} is not a path: write it as /v1/predict.")
    if settings.aip_http_port:
        settings = replace(settings, port=settings.aip_http_port)
    _check_upstream(settings, [name for name in given if name.startswith("upstream_")])
    if settings.grpc_port == settings.port:
        raise StartError(f"GRPC_PORT={settings.grpc_port} is HTTP's port, too: choose another.")
    if settings.default_new_tokens > settings.max_new_tokens and "default_new_tokens" in given:
        raise StartError(
            f"DEFAULT_NEW_TOKENS={settings.default_new_tokens} is more than MAX_NEW_TOKENS={settings.max_new_tokens}: lower the first."
        )
    return settings


def _check_upstream(settings: Settings, given: list[str]) -> None:
    """ENGINE=openai and UPSTREAM_URL belong together. Raises StartError; a URL may hold a password, so none is repeated."""
    if settings.engine != "openai":
        if given:
            raise StartError(
                f"{given[0].upper()} is set and ENGINE is {settings.engine}: set ENGINE=openai to use it, or leave it out."
            )
        return
    if not settings.upstream_url:
        raise StartError("ENGINE=openai needs UPSTREAM_URL: set it to an address such as http://ollama:11434/v1.")
    try:
        parts = urlsplit(settings.upstream_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc:
        raise StartError(
            "UPSTREAM_URL is no plain address: write one such as http://ollama:11434/v1, and a key into UPSTREAM_KEY_FILE."
        )


def _convert(name: str, text: str, kind: type, rule: Mapping[str, Any]) -> str | int | float:
    """One variable's text as its type, within its bounds."""
    if kind is str:
        value = text.lower() if rule["one_of"] else text
        if rule["one_of"] and value not in rule["one_of"]:
            raise StartError(f"{name}={text} is not known: use one of {', '.join(rule['one_of'])}.")
        return value
    try:
        number = int(text) if kind is int else float(text)
    except ValueError:
        raise StartError(f"{name}={text} is not a {'whole ' if kind is int else ''}number.") from None
    low, high = rule["low"], rule["high"]
    if not (low is None or number >= low) or not (high is None or number <= high) or not math.isfinite(number):
        raise StartError(f"{name}={text} is out of range: it has to be {_bounds(rule) or 'finite'}.")
    return number


def _bounds(rule: Mapping[str, Any]) -> str:
    """What a value may be, in words; nothing where anything may be."""
    if rule["one_of"]:
        return "one of " + ", ".join(f"`{word}`" for word in rule["one_of"])
    low, high = rule["low"], rule["high"]
    if low is None:
        return ""
    return f"at least {low:.15g}" if high is None else f"from {low:.15g} to {high:.15g}"


def as_markdown() -> str:
    """SETTINGS.md: the table above for people, so that no page can say anything else than the code."""
    kinds = {int: "whole number", float: "number", str: "text"}
    rows = []
    for item in fields(Settings):
        rule = item.metadata
        allowed = (
            _bounds(rule) if rule["one_of"] else ", ".join(filter(None, (kinds[type(item.default)], _bounds(rule))))
        )
        default = f"`{item.default}`" if item.default != "" else rule["unset"]
        rows.append(f"| `{item.name.upper()}` | {default} | {allowed} | {rule['text']} |")
    return "\n".join(
        (
            "# Settings",
            "",
            "From the environment; an empty variable counts as not set, a wrong one ends the start with a sentence and exit code 1.",
            "This page is what `inference-server settings` prints; a test holds it against the code.",
            "",
            "| variable | default | may be | what it does |",
            "|---|---|---|---|",
            *rows,
        )
    )


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, cut by the container's CPU quota (cgroup v2, then v1); at least 1.

    onnxruntime alone counts the host's cores and then fights its own threads inside a small container.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(Path("/sys/fs/cgroup"))
    return max(1, min(cpus, int(quota + 0.999) if quota else cpus))


def _quota(cgroup: Path) -> float | None:
    """CPU quota in CPUs, or None where there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return float(limit) / float(period) if limit not in ("max", "-1") else None
