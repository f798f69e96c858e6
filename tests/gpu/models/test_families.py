"""Which models are refused, by name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.families import FAMILIES, check_family, position_limit, rope_growth
from tests.gpu.models.tiny import BASE, LLAMA3_ROPE, SPECIAL, YARN_ROPE

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


def config(family: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = AutoConfig.for_model(family, **{**BASE, **SPECIAL.get(family, {}), **changes}).to_dict()
    return values


def test_every_family_has_a_tiny_checkpoint_to_be_tested_with() -> None:
    assert set(FAMILIES) == set(SPECIAL)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_of_the_table_are_served(family: str) -> None:
    check_family("/m", config(family))


@pytest.mark.parametrize("model_type", ["clip", "vit", "no_such_model", None])
def test_an_unknown_model_type_is_refused_with_those_that_are_served(model_type: str | None) -> None:
    with pytest.raises(ModelRefused, match=rf"/m/config.json: model_type '{model_type}' is not served.*llama.*qwen3"):
        check_family("/m", {"model_type": model_type})


def test_a_rope_scaling_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(ModelRefused, match="rope scaling 'spiral' is not served"):
        check_family("/m", {**config("llama"), "rope_parameters": {"rope_type": "spiral"}})


def test_a_scaling_that_grows_with_the_text_is_refused_where_only_one_type_of_layer_has_it() -> None:
    ropes = {"full_attention": LONG, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}

    with pytest.raises(ModelRefused, match="'longrope'"):
        check_family("/m", {**config("gemma3_text"), "rope_parameters": ropes})


@pytest.mark.parametrize("rope", [LLAMA3_ROPE, YARN_ROPE, LONG, DYNAMIC], ids=lambda rope: rope["rope_type"])
def test_rope_scalings_are_served(rope: dict[str, Any]) -> None:
    check_family("/m", config("llama", rope_parameters=rope))


@pytest.mark.parametrize(
    ("rope", "most"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 256),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, 512),
        (DYNAMIC, 512),
        (LLAMA3_ROPE, 256),
        ({**YARN_ROPE, "factor": 16.0}, 1024),
        (YARN_ROPE, 256),
        (LONG, 256),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else str(value),
)
def test_a_scaling_that_stretches_positions_gives_a_longer_context(rope: dict[str, Any], most: int) -> None:
    assert position_limit(config("llama", rope_parameters=rope)) == most


def test_what_a_prompts_keys_hang_on_is_its_length_where_the_scaling_grows() -> None:
    dynamic = rope_growth(config("llama", rope_parameters=DYNAMIC))
    assert dynamic is not None and dynamic.salt(1) == dynamic.salt(256) == ""
    assert len({"", dynamic.salt(257), dynamic.salt(258)}) == 3
    long = rope_growth(config("llama", rope_parameters=LONG))
    assert long is not None and long.salt(64) == "" != long.salt(65) == long.salt(200)
    assert rope_growth(config("llama")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification.*are not served"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantized weights \(awq\)"),
        ({"use_bidirectional_attention": True}, "only causal models"),
    ],
)
def test_what_is_not_a_plain_causal_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        check_family("/m", {**config("llama"), **changes})


@pytest.mark.parametrize("model_type", ["mistral3", "llama4", "gemma3n"])
def test_a_multimodal_checkpoint_is_refused_as_one(model_type: str) -> None:
    with pytest.raises(ModelRefused, match=f"'{model_type}' is a multimodal checkpoint; only .* the text of gemma3$"):
        check_family("/m", {"model_type": model_type, "text_config": {"model_type": "llama"}})
