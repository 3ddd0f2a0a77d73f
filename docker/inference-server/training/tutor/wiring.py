"""Wire a pair of attention heads at the start, so that copying does not have to be found by chance.

What lets a transformer copy is one head that looks at the token before, and a later one that looks for a place whose
token before equals the current token, and passes on what stands there (an induction head: Olsson et al. 2022,
"In-context Learning and Induction Heads"). Training finds the pair in the end, after more steps than a CPU makes in
half an hour; so three heads begin with the weights below, all others with random ones, and training goes on from there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

EMBEDDING = 0.05  # spread of the embeddings
CONSTANT = 0.2  # first number of every embedding: a direction in which all tokens are alike
SHARP = range(5)  # rotary pairs of high frequency: they tell neighbours apart
SLOW = range(16, 32)  # pairs that hardly turn within a passage: they can carry a token's identity
LOOK, WRITE, MATCH, COPY = 12.0, 0.1, 1.7, 0.3  # strengths; with these, untrained, it repeats 3 of 4 tokens


def wire(net: LlamaForCausalLM) -> None:
    """Set embeddings, head 0 of layer 0 (the token before) and heads 0 and 1 of layer 1 (find its like, copy what follows)."""
    with torch.no_grad():
        _wire(net)


def _wire(net: LlamaForCausalLM) -> None:
    config = net.config
    width, size = int(config.head_dim), int(config.hidden_size)
    half = width // 2
    theta = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    table = net.model.embed_tokens.weight
    table.normal_(std=EMBEDDING)
    table[:, 0] = CONSTANT
    rms = (EMBEDDING**2 + CONSTANT**2 / size) ** 0.5
    constant = torch.zeros(size)
    constant[0] = rms / CONSTANT  # reads 1 from every token after the norm
    # The score of layer 0 is a sharp function of the distance, below zero except at distance one.
    q, k = torch.zeros(width, size), torch.zeros(width, size)
    for pair in SHARP:
        q[pair] = constant
        k[pair], k[pair + half] = torch.cos(theta[pair]) * constant, torch.sin(theta[pair]) * constant
    q[half - 1], k[half - 1] = constant, -0.85 * len(SHARP) * constant
    basis = torch.zeros(size, size)
    basis[1:, 1:] = torch.linalg.qr(torch.randn(size - 1, size - 1))[0]
    dims = [*SLOW, *(i + half for i in SLOW)]
    identity, before = basis[1 : 1 + len(dims)], basis[1 + len(dims) : 1 + 2 * len(dims)]
    v = torch.zeros(width, size)
    o = torch.zeros(size, width)
    v[: len(dims)], o[:, : len(dims)] = identity, before.T * WRITE
    _set(net.model.layers[0], 0, q * LOOK, k * LOOK, v, o)
    # Layer 1: the query is the current token's identity, the key the identity of the token before.
    q, k = torch.zeros(width, size), torch.zeros(width, size)
    q[dims], k[dims] = identity * MATCH, before * MATCH
    passed = torch.linalg.qr(torch.randn(size, size))[0]
    for head in (0, 1):
        part = passed[head * width : (head + 1) * width]
        _set(net.model.layers[1], head, q, k, part, part.T * COPY)


def _set(layer: nn.Module, head: int, q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> None:
    """Replace one head's four matrices."""
    part = slice(head * len(q), (head + 1) * len(q))
    attention = layer.self_attn
    attention.q_proj.weight[part], attention.k_proj.weight[part] = q, k
    attention.v_proj.weight[part], attention.o_proj.weight[:, part] = v, o
