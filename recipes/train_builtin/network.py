"""The network that is trained: a Llama in plain PyTorch, over segments of rows of one length.

Its parameters have Hugging Face's names and shapes, so that what is saved is a checkpoint of `LlamaForCausalLM` (a test
compares the two). It knows tensors; nothing of tasks or optimisers.

The invariant: the parts between two attentions see `[tokens, hidden]` with one number of tokens always, so that they
are compiled once; attention sees each segment by itself, `[rows, heads, width, head]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    head_dim: int = 64
    rope_theta: float = 500_000.0
    """With 32 frequencies a good third of a head turns so slowly that it compares words over the whole context."""
    max_position_embeddings: int = 8192

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": EPSILON,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": [2, 0],
            "pad_token_id": 3,
            "initializer_range": 0.02,
            "dtype": dtype,
            "use_cache": True,
        }


class Network(nn.Module):
    def __init__(self, shape: Shape, *, is_compiled: bool = False) -> None:
        super().__init__()
        self.shape = shape
        hidden, inner, heads = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim
        sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
        for layer in range(shape.num_hidden_layers):
            at = f"model.layers.{layer}"
            sizes |= {f"{at}.self_attn.{part}_proj.weight": (heads, hidden) for part in "qkv"}
            sizes |= {f"{at}.self_attn.o_proj.weight": (hidden, heads)}
            sizes |= {f"{at}.mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
            sizes |= {f"{at}.mlp.down_proj.weight": (hidden, inner)}
            sizes |= {f"{at}.{part}_layernorm.weight": (hidden,) for part in ("input", "post_attention")}
        sizes |= {"model.norm.weight": (hidden,)}
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(torch.empty(size)) for name, size in sizes.items()}
        )
        self._begin()
        # what lies between two attentions is a function of tensors only: one compilation serves all layers
        self._compiled = (torch.compile(before, dynamic=False), torch.compile(after, dynamic=False))
        self._is_compiled = is_compiled

    def _begin(self) -> None:
        depth = (2 * self.shape.num_hidden_layers) ** -0.5
        for name, weight in self.named():
            if weight.dim() == 1:
                nn.init.ones_(weight)
            else:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(
                    weight, std=0.02 if "embed" in name else weight.shape[1] ** -0.5 * (depth if out else 1)
                )

    def named(self) -> Sequence[tuple[str, nn.Parameter]]:
        """By Hugging Face's names."""
        return [(name.replace("/", "."), weight) for name, weight in self.weights.items()]

    def forward(
        self, ids: Tensor, positions: Tensor, rows: Sequence[tuple[int, int]], *, is_usual: bool | None = None
    ) -> Tensor:
        """ids, positions [tokens]; rows: (number, width) of each segment, one after the other → [tokens, hidden]."""
        weights = {name: weight for name, weight in self.named()}
        x = F.embedding(ids, weights["model.embed_tokens.weight"])
        cos, sin = self.rotations(positions)
        # scoring comes with other numbers of tokens, and would compile for each
        is_compiled = self._is_compiled and (torch.is_grad_enabled() if is_usual is None else is_usual)
        first, second = self._compiled if is_compiled else (before, after)
        for layer in range(self.shape.num_hidden_layers):
            at = f"model.layers.{layer}"
            q, k, v = first(
                x,
                weights[f"{at}.input_layernorm.weight"],
                *(weights[f"{at}.self_attn.{part}_proj.weight"] for part in "qkv"),
                cos,
                sin,
            )
            x = second(
                x,
                attended(q, k, v, rows),
                weights[f"{at}.self_attn.o_proj.weight"],
                weights[f"{at}.post_attention_layernorm.weight"],
                *(weights[f"{at}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down")),
            )
        return normed(x, weights["model.norm.weight"])

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weights["model/embed_tokens/weight"])

    def rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, 1, head / 2] each."""
        half = self.shape.head_dim // 2
        steps = torch.arange(half, device=positions.device, dtype=torch.float32) / half
        angles = positions.float()[:, None] * self.shape.rope_theta**-steps
        return angles.cos()[:, None], angles.sin()[:, None]


def normed(x: Tensor, weight: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * weight


def before(
    x: Tensor, norm: Tensor, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[tokens, hidden] → queries, keys and values, [tokens, heads, head]."""
    y = normed(x, norm)
    head = 2 * cos.shape[-1]
    queries, keys, values = (F.linear(y, weight).unflatten(-1, (-1, head)) for weight in (q, k, v))
    return rotated(queries, cos, sin), rotated(keys, cos, sin), values


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)


def attended(q: Tensor, k: Tensor, v: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """Each row sees itself only, and of itself what came before. [tokens, heads, head] → [tokens, hidden]."""
    outs = []
    sizes = [number * width for number, width in rows]
    for shape, *parts in zip(rows, *(x.split(sizes) for x in (q, k, v)), strict=True):
        by_row = (part.unflatten(0, shape).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(*by_row, is_causal=True)
        outs.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(outs)


def after(x: Tensor, attention: Tensor, out: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    x = x + F.linear(attention, out)
    y = normed(x, norm)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)
