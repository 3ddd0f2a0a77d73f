"""The course's glossary as documents: docs/glossary/<topic>.md, made from what the tutor was trained on.

    python docker/rag-service/evaluation/glossary.py    # writes them again

Only the answers, each under its entry's name: the questions are for asking. A test holds the files against the glossary.
"""

from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
GLOSSARY = CHECKOUT / "docker" / "inference-server" / "training" / "tutor" / "glossary"
DOCUMENTS = CHECKOUT / "docs" / "glossary"
NAMES = {
    name.lower(): name
    for name in [
        "AB",
        "AI",
        "AIP",
        "API",
        "BuildKit",
        "CDI",
        "CI",
        "CD",
        "CPU",
        "GPU",
        "CUDA",
        "DNS",
        "Docker",
        "ECR",
        "GitHub",
        "GKE",
        "Gradio",
        "Grafana",
        "HPA",
        "HTTP",
        "IAM",
        "ID",
        "IP",
        "JSON",
        "Kubernetes",
        "KV",
        "LLM",
        "MIG",
        "ML",
        "NGC",
        "NVIDIA",
        "OCI",
        "ONNX",
        "OOM",
        "Prometheus",
        "QEMU",
        "RAG",
        "SDK",
        "SageMaker",
        "SBOM",
        "SSE",
        "Streamlit",
        "TLS",
        "TPU",
        "UID",
        "URL",
        "Vertex",
        "VM",
        "vLLM",
        "YAML",
    ]
}


def pages() -> dict[str, str]:
    """File name to its text, one for each topic."""
    found = {}
    for file in sorted(GLOSSARY.glob("*.yaml")):
        topic = yaml.safe_load(file.read_text(encoding="utf-8"))
        parts = [f"# {title(topic['topic'])}"]
        parts += [f"## {title(entry['id'])}\n\n{entry['answer']}" for entry in topic["entries"]]
        found[f"{file.stem}.md"] = "\n\n".join(parts) + "\n"
    return found


def title(name: str) -> str:
    """`bind-mount` as `Bind mount`, `nvidia-smi-in-ci` as `NVIDIA smi in CI`."""
    words = [NAMES.get(word, word) for word in name.replace("_", "-").split("-")]
    return " ".join([words[0] if words[0] in NAMES.values() else words[0].capitalize(), *words[1:]])


if __name__ == "__main__":
    DOCUMENTS.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (DOCUMENTS / name).write_text(text, encoding="utf-8")
