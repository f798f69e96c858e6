"""Finds a checkpoint, checks its files, and says what they state (`CheckpointFacts`).

It reads the small JSON files and the headers of the safetensors files, never the weights themselves. The invariant:
whatever passes here has every file it names, whole; anything else is a `ModelRefused` whose message names the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from parrot_compat.core.call import REPETITION_PENALTIES, Sampling
from parrot_compat.core.engine import Pooling
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.config import CheckpointFacts
from parrot_compat.gpu.layers.heads import head_dim
from parrot_compat.gpu.models.builtin import checkpoint
from parrot_compat.gpu.models.ends import read_ends
from parrot_compat.gpu.models.families import position_limit, rope_growth
from parrot_compat.gpu.models.hub import download
from parrot_compat.gpu.models.plan import row_and_activation
from parrot_compat.gpu.models.reading import read_config, read_json

__all__ = ["check_files", "locate", "read_facts"]

BUILTIN = "builtin:"
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_open: Any = safe_open
NOT_APPLIED = (
    "typical_p", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "penalty_alpha", "epsilon_cutoff",
    "eta_cutoff", "top_h", "exponential_decay_length_penalty", "sequence_bias", "guidance_scale", "num_beams",
)  # fmt: skip
"""Keys of generation_config.json that would change a text and that this engine has no notion of."""
NEUTRAL: tuple[object, ...] = (None, 0, 1, 0.0, 1.0, [], {})


def locate(model: str) -> Path:
    """The checkpoint's folder: `builtin:NAME`, a local folder, or a hub id (downloaded, or from its cache)."""
    if model.startswith(BUILTIN):
        return checkpoint(model.removeprefix(BUILTIN))
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise ModelRefused(f"{model} is a file; a model is a folder with config.json and safetensors")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelRefused(f"there is no folder {model}")
    return download(model)


def check_files(path: Path) -> None:
    """Every safetensors file that the checkpoint names is there and whole."""
    index, single = path / "model.safetensors.index.json", path / "model.safetensors"
    if single.exists():
        _tensor_names(single)
    elif index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelRefused(f"{index} has no weight_map")
        shards: dict[str, set[str]] = {}
        for tensor, shard in weight_map.items():
            shards.setdefault(shard, set()).add(tensor)
        for shard, tensors in sorted(shards.items()):
            absent = sorted(tensors - _tensor_names(path / shard))
            if absent:
                raise ModelRefused(f"{path / shard} lacks {len(absent)} tensors of the index, first {absent[0]}")
    else:
        pickles = sorted(item.name for item in path.glob("*.bin")) + sorted(item.name for item in path.glob("*.pt*"))
        if pickles:
            raise ModelRefused(
                f"{path} has its weights only as pickles ({pickles[0]}), which can run code when read; "
                "convert them to safetensors"
            )
        raise ModelRefused(f"{path} has no weights: neither model.safetensors nor model.safetensors.index.json")


def _tensor_names(file: Path) -> set[str]:
    if not file.exists():
        raise ModelRefused(f"{file} is missing")
    try:
        with safe_open(str(file), framework="pt") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{file} ({file.stat().st_size} bytes) is broken or truncated: {error}") from error


def read_facts(path: Path) -> CheckpointFacts:
    """What config.json, generation_config.json and, of the end of a text, the tokenizer's files state.

    Sampling defaults are vLLM's (`get_diff_sampling_param`): a value that generation_config.json states is the
    default, whatever `do_sample` says, and what it does not state is not filtered (temperature 1). Ends of
    sequence are Hugging Face's (generation_config.json's, or else config.json's), and the tokenizer's.
    """
    config = read_config(path)
    values = config.to_dict()
    generation_file = path / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}

    def number(name: str, otherwise: int | None = None) -> int:
        value = getattr(config, name, None)  # by transformers' name, whatever the family calls it
        if value is None and otherwise is not None:
            return otherwise
        if not isinstance(value, int) or value < 1:
            raise ModelRefused(f"{path}/config.json: {name} must be a positive integer, not {value!r}")
        return value

    has_fast_decoder, growth = row_and_activation(config) is not None, rope_growth(values)
    if growth is not None and not has_fast_decoder:  # transformers' modules take it from the longest text of a step
        raise ModelRefused(f"{path}/config.json: rope scaling {growth.kind!r} is not served with its activation")
    heads, hidden = number("num_attention_heads"), number("hidden_size")
    stated = generation.get("eos_token_id")
    ends, end_notes = read_ends(path, values.get("eos_token_id") if stated is None else stated)
    dtype = values.get("dtype") or _dtype_of_files(path)
    return CheckpointFacts(
        path=str(path),
        model_type=values["model_type"],
        layers=number("num_hidden_layers"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", head_dim(config)),
        vocab_size=number("vocab_size"),
        max_position_embeddings=position_limit(values | {"max_position_embeddings": number("max_position_embeddings")}),
        hidden_size=hidden,
        intermediate_size=_largest(getattr(config, "intermediate_size", None)),
        has_fast_decoder=has_fast_decoder,
        rope_growth=growth,
        pooling=_pooling(path / "1_Pooling" / "config.json"),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        eos_token_ids=ends,
        defaults=_sampling_defaults(generation_file, generation),
        notes=(
            *end_notes,
            *(
                f"generation_config.json asks for {key} = {generation[key]!r}, which is not applied"
                for key in NOT_APPLIED
                if generation.get(key) not in NEUTRAL
            ),
        ),
    )


def _largest(value: Any) -> int:
    """Of a number, or of one for each layer; 0 where there is none."""
    values = value if isinstance(value, list | tuple) else [value]
    return max((each for each in values if isinstance(each, int)), default=0)


def _dtype_of_files(path: Path) -> str | None:
    """Of the first floating tensor, as Hugging Face takes it where config.json states none."""
    for file in sorted(path.glob("*.safetensors")):
        with suppress(Exception), _open(str(file), framework="pt") as tensors:  # a broken file is told of later
            names: list[str] = tensors.keys()
            stored = (tensors.get_slice(name).get_dtype() for name in names)
            if (found := next((_DTYPES[each] for each in stored if each in _DTYPES), None)) is not None:
                return found
    return None


def _pooling(file: Path) -> Pooling:
    """As sentence-transformers states it; other checkpoints were not trained for one and get the mean."""
    stated = read_json(file) if file.exists() else {}
    return "last" if stated.get("pooling_mode_lasttoken") is True else "mean"


def _sampling_defaults(file: Path, generation: Mapping[str, Any]) -> Sampling:
    def stated(name: str, kind: type[float] | type[int], least: float, most: float) -> Any:
        value = generation.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ModelRefused(f"{file}: {name} is {value!r}, not a number in [{least}, {most}]")
        return kind(value)

    top_k = stated("top_k", int, -1, float("inf"))
    return Sampling(
        max_tokens=stated("max_new_tokens", int, 1, float("inf")),
        temperature=stated("temperature", float, 0.0, float("inf")),
        top_p=stated("top_p", float, 0.0, 1.0),
        top_k=None if top_k is None else max(0, top_k),
        min_p=stated("min_p", float, 0.0, 1.0),
        repetition_penalty=stated("repetition_penalty", float, *REPETITION_PENALTIES),
    )
