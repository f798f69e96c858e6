"""Random-weight checkpoints of real shapes, as normal Hugging Face folders that every server here can load.

`l25` is a Llama of 25M parameters, `q125` a Qwen3 of 125M, each in fp32 and bf16: `folder("l25-fp32")`. Any other
name is a folder that is there already. It knows shapes and file formats, nothing of servers.

The invariant: the same name on the same Python is the same folder, weight by weight, and greedy text of it varies.
Tokens that are no whole characters (and the control tokens) have output rows of zero, so that greedy answers are text
which every server cuts into the same pieces.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["SHAPES", "facts", "folder"]

SEED = 20261120
VERSION = 2
"""Goes up when other weights or another vocabulary are made, so that an old folder is not taken for a new one."""
VOCABULARY = 8192
POSITIONS = 16384
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "head_dim": 64,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "use_cache": True,
}
# `initializer_range` is wide enough that greedy text varies: 47 of 48 tokens differ.
SHAPES: dict[str, dict[str, Any]] = {
    "l25": _COMMON
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "initializer_range": 0.06,
    },
    "q125": _COMMON
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 768,
        "intermediate_size": 2688,
        "num_hidden_layers": 14,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "initializer_range": 0.04,
    },
}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def folder(name: str) -> Path:
    """The folder of a named checkpoint, made on first use (10 s and 0.1 to 0.5 GB), or the folder of that path."""
    shape, _, dtype = name.rpartition("-")
    if shape in SHAPES and dtype in DTYPES:
        return _made(shape, dtype)
    if name in ("builtin:tiny", "builtin:random"):
        from parrot_compat.gpu.models.builtin import checkpoint

        return checkpoint(name.removeprefix("builtin:"))
    place = Path(name)
    if not (place / "config.json").is_file():
        known = ", ".join(f"{shape}-{dtype}" for shape in SHAPES for dtype in DTYPES)
        raise SystemExit(
            f"no checkpoint {name!r}: neither a folder with a config.json nor one of {known}, builtin:tiny, "
            "builtin:random"
        )
    return place


def facts(place: Path) -> dict[str, Any]:
    """config.json of a checkpoint, with `kv_bytes_per_token` and `dtype` added."""
    config: dict[str, Any] = json.loads((place / "config.json").read_text())
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    values = 2 * config["num_hidden_layers"] * heads * width
    return config | {"dtype": dtype, "kv_bytes_per_token": values * (4 if dtype == "float32" else 2)}


# ---- making one ----------------------------------------------------------------------------------------


def _made(shape: str, dtype: str) -> Path:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"  # its standard library is what the vocabulary is made of
    made_from = json.dumps([SEED, VERSION, python, SHAPES[shape], dtype], sort_keys=True)
    place = _cache() / f"{shape}-{dtype}-{hashlib.sha256(made_from.encode()).hexdigest()[:10]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            _write(draft, shape, dtype)
            draft.chmod(0o755)
            draft.rename(place)
        except OSError:
            if not place.is_dir():  # else another process has just made the same folder
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return place


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrot_compat" / "bench"


def _write(place: Path, shape: str, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    config = SHAPES[shape] | {"dtype": DTYPES[dtype]}
    special = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|pad|>", "model_max_length": POSITIONS}
    shipped = resources.files("parrot_compat.gpu.models") / "builtin_tiny"
    template = (shipped / "chat_template.jinja").read_text("utf-8")
    texts = {
        "config.json": config,
        "generation_config.json": {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "tokenizer_config.json": special | {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template},
    }
    for name, value in texts.items():
        (place / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    tokenizer = _vocabulary()
    (place / "tokenizer.json").write_text(tokenizer, "utf-8")
    silent = list(_silent_tokens(tokenizer))
    weights = {}
    for name, tensor in _weights(config):
        drawn = torch.from_numpy(tensor)
        if name == "lm_head.weight":
            drawn[silent] = 0.0
        weights[name] = drawn.to(getattr(torch, DTYPES[dtype]))
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def _vocabulary() -> str:
    """tokenizer.json, trained as builtin:tiny's is, to twice its size."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    from recipes.train_builtin.tokenizer import WORDS, corpus

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    levels = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, levels])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return str(tokenizer.to_str())


def _silent_tokens(tokenizer: str) -> Iterator[int]:
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_str(tokenizer)
    for token in range(VOCABULARY):
        text = vocabulary.decode([token], skip_special_tokens=True)
        if not text or "\N{REPLACEMENT CHARACTER}" in text:
            yield token


def _weights(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every tensor has a generator of its own, seeded by its name; NumPy's normal deviates are the same everywhere."""
    import numpy as np

    for name, shape in _tensor_shapes(config).items():
        if len(shape) == 1:
            yield name, np.ones(shape, np.float32)
        else:
            drawn = np.random.default_rng([SEED, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
            yield name, drawn * np.float32(config["initializer_range"])


def _tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, shared = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (query, hidden),
            f"{at}.self_attn.k_proj.weight": (shared, hidden),
            f"{at}.self_attn.v_proj.weight": (shared, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, query),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
        }
        if config["model_type"] == "qwen3":
            shapes |= {f"{at}.self_attn.{which}_norm.weight": (head,) for which in ("q", "k")}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (VOCABULARY, hidden)}
