"""Decoders without a row of ours: equal to Hugging Face where the probe lets them in, and refused by name elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from parrot_compat.gpu.runner import ModelRunner
from tests.gpu.models.tiny import save_tiny
from tests.gpu.test_runner import generate, generate_with_transformers, make_runner, prompts, sequences

SERVED = ("mixtral", "qwen3_moe", "qwen2_moe", "smollm3", "olmo3", "cohere2", "granite", "glm4", "starcoder2")


@pytest.mark.parametrize("family", SERVED)
def test_greedy_tokens_of_a_probed_family_equal_hugging_face_generate(family: str, tmp_path: Path) -> None:
    path = save_tiny(family, tmp_path, shard_size="200KB")
    texts = prompts([1, 4, 17, 33, 60])
    expected = generate_with_transformers(path, texts)
    assert len({token for output in expected for token in output}) >= 20, "the checkpoint's text must vary"
    runner = make_runner(path)
    assert isinstance(runner._decoder, TransformersDecoder)
    assert generate(runner, sequences(texts)) == expected
    assert generate(make_runner(path), sequences(texts, seed=7), chunk=6) == expected


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("gpt_oss", {}, r"GptOssForCausalLM gives other logits over paged KV than by itself \(off by"),
        ("stablelm", {}, "StableLmForCausalLM cannot run with another attention than its own"),
        ("gptj", {}, "GPTJForCausalLM cannot run with another attention than its own"),
        ("olmo", {"sliding_window": 12}, "layer 0 of OlmoForCausalLM attends with window None.*says 12"),
        ("cohere2", {"num_key_value_heads": 2, "head_dim": 16, "use_bidirectional_attention": True}, "only causal"),
        (
            "granite",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope scaling 'dynamic' is not served for model_type 'granite'",
        ),
        ("olmo3", {"layer_types": ["linear_attention", "full_attention"]}, "'linear_attention'"),
    ],
)
def test_what_would_run_almost_right_is_refused_by_name(
    family: str, changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = save_tiny(family, tmp_path)
    if changes:
        _change_config(path, changes)
    with pytest.raises(ModelRefused, match=reason) as refusal:
        ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))
    assert str(path) in str(refusal.value)


def _change_config(path: Path, changes: dict[str, object]) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_no_reason_to_refuse(dtype: str, tmp_path: Path) -> None:
    path = save_tiny("granite", tmp_path)
    assert ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64, dtype=dtype)).config.dtype == dtype  # type: ignore[arg-type]
