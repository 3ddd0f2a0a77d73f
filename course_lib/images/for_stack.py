"""What lab 4.4.1 hands on to the Compose stack: images, as the variables that its files ask for."""

from __future__ import annotations

from course_lib.images import bases, course_image, pins

#: Name in docker/base/images.toml: the stack's variable.
_SERVICES = {
    "nginx": "NGINX_IMAGE",
    "chroma": "CHROMA_IMAGE",
    "prometheus": "PROMETHEUS_IMAGE",
    "alertmanager": "ALERTMANAGER_IMAGE",
    "blackbox": "BLACKBOX_IMAGE",
    "redis": "CACHE_IMAGE",
    # of compose.gpu.yaml
    "dcgm-exporter": "DCGM_IMAGE",
    "node-exporter": "NODE_EXPORTER_IMAGE",
    "ollama": "OLLAMA_IMAGE",
    "vllm": "VLLM_IMAGE",
}


def stack_variables() -> dict[str, str]:
    """INFERENCE_IMAGE (built if need be), BASE_IMAGE, BUILDER_IMAGE; where a registry answers, also the services' images
    with their digests. Without a registry these are missing, and the stack builds the services from packages.

    Raises:
        CourseError: the inference image or its bases can't be had.
    """
    found = bases.ensure()
    variables = {
        "INFERENCE_IMAGE": course_image.ensure_inference_image(),
        "BASE_IMAGE": found.runtime,
        "BUILDER_IMAGE": found.builder,
    }
    if found.source == "registry":
        table = pins.load()
        variables |= {variable: table[name].pinned for name, variable in _SERVICES.items()}
    return variables
