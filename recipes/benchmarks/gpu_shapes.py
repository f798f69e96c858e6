"""Random-weight checkpoints in the shapes of real models, and the loads that are put on them.

A checkpoint is written once into a folder of the caller's. The invariant: every system reads the same folder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.plan import plan_decoder
from parrot_compat.gpu.runner import ModelRunner

__all__ = ["SHAPES", "Load", "made", "runner_of"]

SHARD_BYTES = 2 << 30

_TINY = {
    "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 128, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 511,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "tiny-llama": {"model_type": "llama", **_TINY},
    "tiny-qwen3": {"model_type": "qwen3", **_TINY},
    "tiny-mistral": {"model_type": "mistral", "sliding_window": 24, **_TINY},
    "tiny-gemma2": {"model_type": "gemma2", "sliding_window": 24, "query_pre_attn_scalar": 16, **_TINY},
    "tiny-gemma3": {
        "model_type": "gemma3_text", "sliding_window": 24, "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"], **_TINY,
    },
    "tiny-mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, **_TINY},
    "qwen3-0.6b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": True, "eos_token_id": 151645,
    },
    "llama-8b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "rope_theta": 5e5, "eos_token_id": 128001, "bos_token_id": 128000,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What `engine` and `vllm` are given to do."""

    rows: tuple[int, ...]
    sampled_rows: tuple[int, ...]
    """Of `rows`, those of which sampled texts are drawn as well."""
    context: int
    prompts: tuple[int, ...]
    sequences: int
    """Of the mixed run, each with lengths of prompt and output drawn evenly from `lengths`."""
    lengths: tuple[int, int]
    front: int
    """Tokens that all prompts of a group have in common, whole pages of them."""
    front_rows: tuple[int, ...]
    private: int
    """Tokens that a row of a group has of its own."""
    rate_prompt: int
    rate_outputs: tuple[int, int]
    """Two lengths of text whose difference is timed. In the shorter one the first row must still draw when the last
    prompt has been computed: then the longer one has nothing more than steps in which all rows draw."""
    tries: int

    def mixed(self, vocabulary: int, seed: int = 0) -> list[tuple[list[int], int]]:
        """(prompt, output tokens). With another seed the prompts are others: what a cache knows of these is no help."""
        drawn = random.Random(seed)
        low, high = self.lengths
        return [
            ([drawn.randrange(3, vocabulary - 8) for _ in range(drawn.randint(low, high))], drawn.randint(low, high))
            for _ in range(self.sequences)
        ]

    @property
    def kv_tokens(self) -> int:
        mixed, decode = self.sequences * 2 * self.lengths[1], max(self.rows) * (self.context + 64)
        shared = 2 * self.front + (2 * max(self.front_rows) + 1) * (self.private + 64)
        return max(mixed, decode, shared, *self.prompts) + 256


def made(name: str, dtype: torch.dtype, under: Path, device: torch.device) -> Path:
    """The folder of a shape, written if it is not there."""
    place = under / f"{name}-{str(dtype).removeprefix('torch.')}"
    if (place / "model.safetensors.index.json").exists() or (place / "model.safetensors").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    stated = dict(SHAPES[name])
    config = AutoConfig.for_model(stated.pop("model_type"), **stated, dtype=str(dtype).removeprefix("torch."))
    config.save_pretrained(place)
    plan = plan_decoder(config)
    generator = torch.Generator(device).manual_seed(0)
    if plan is None:  # it has no row of ours, and its files are laid out as only transformers knows
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for tensor, parameter in model.named_parameters():
                parameter.copy_(_drawn(tensor, parameter.shape, generator, device))
        model.save_pretrained(place)
        return place
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    held = 0
    for tensor, shape in plan.tensors():
        shard[tensor] = _drawn(tensor, shape, generator, device).to("cpu", dtype)
        held += shard[tensor].nbytes
        if held > SHARD_BYTES:
            _save(shard, index, place)
            shard, held = {}, 0
    _save(shard, index, place)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return place


def _drawn(name: str, shape: Sequence[int], generator: torch.Generator, device: torch.device) -> torch.Tensor:
    noise = torch.randn(tuple(shape), generator=generator, device=device)
    return 1.0 + 0.1 * noise if len(shape) == 1 and "norm" in name else noise * 1.5 / shape[-1] ** 0.5


def _save(shard: dict[str, torch.Tensor], index: dict[str, str], place: Path) -> None:
    file = f"model-{len(set(index.values())):05}.safetensors"
    save_file(shard, place / file, metadata={"format": "pt"})
    index |= dict.fromkeys(shard, file)


def runner_of(place: Path, device: torch.device, tokens: int | None, **asked: Any) -> ModelRunner:
    kind = "cuda" if device.type == "cuda" else "cpu"
    return ModelRunner(EngineConfig(model=str(place), device=kind, kv_tokens=tokens, page_size=16, **asked))  # type: ignore[arg-type]
