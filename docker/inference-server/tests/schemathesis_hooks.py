"""Leaves out what JSON Schema can't say about a good request; read by schemathesis (SCHEMATHESIS_HOOKS)."""

from typing import Any

import schemathesis

VOCABULARY = 3072  # the tutor's
LONGEST = 2000  # characters: about what fits in MAX_PROMPT_TOKENS


def _ids(value: Any) -> list[int]:
    """Every number in nested lists."""
    if isinstance(value, list):
        return [number for item in value for number in _ids(item)]
    return [int(value)] if isinstance(value, int | float) else []


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """No tokens that the tutor doesn't have, and no two fields that need or exclude each other."""
    body = case.body
    if not isinstance(body, dict):
        return True
    if len(str(body.get("messages"))) + len(str(body.get("prompt"))) > LONGEST:
        return False
    kind = "embedder" if "embeddings" in case.path else "tutor"
    if case.path.startswith("/v1") and str(body.get("model")).partition(":")[0] in {"digits", "embedder", "tutor"} - {
        kind
    }:
        return False
    bias = body.get("logit_bias")
    known = (
        [int(token) < VOCABULARY for token in bias if token.isascii() and token.isdigit()]
        if isinstance(bias, dict)
        else []
    )
    fits = not (body.get("top_logprobs") and not body.get("logprobs"))
    alone = not (body.get("echo") and body.get("logprobs") is not None)
    return all(known) and all(number < VOCABULARY for number in _ids(body.get("prompt"))) and fits and alone
