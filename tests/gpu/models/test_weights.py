"""Checkpoints that are found, read, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from parrot_compat.core.call import Sampling
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.weights import check_files, locate, read_facts
from parrot_compat.gpu.runner import ModelRunner
from tests.gpu.models.tiny import save_tiny

Checkpoint = Callable[[str], Path]


@pytest.fixture
def copy(tmp_path: Path, tiny_checkpoint: Checkpoint) -> Path:
    """A llama checkpoint of the test's own, to break."""
    return Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "mine"))


def edit(file: Path, **changes: Any) -> None:
    value = json.loads(file.read_text()) if file.exists() else {}
    value.update(changes)
    file.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}))


def load(path: Path) -> ModelRunner:
    return ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))


def test_facts_are_what_the_files_state(copy: Path) -> None:
    edit(copy / "generation_config.json", eos_token_id=[1, 7], temperature=0.6, top_k=20, max_new_tokens=99)
    edit(copy / "config.json", dtype="bfloat16")
    facts = read_facts(copy)

    assert (facts.model_type, facts.layers, facts.heads, facts.kv_heads, facts.head_dim) == ("llama", 2, 4, 2, 16)
    assert (facts.vocab_size, facts.max_position_embeddings, facts.dtype) == (256, 256, "bfloat16")
    assert facts.eos_token_ids == (1, 7)
    assert facts.defaults == Sampling(temperature=0.6, top_k=20, max_tokens=99)
    assert facts.notes == ()


def test_of_an_mlp_of_another_width_in_each_layer_the_widest_counts(tmp_path: Path) -> None:
    widths = [16, 64]
    AutoConfig.for_model("gemma3n_text", num_hidden_layers=2, intermediate_size=widths).save_pretrained(tmp_path)
    assert read_facts(tmp_path).intermediate_size == 64


def test_a_family_without_a_row_of_ours_is_known_to_take_the_memory_of_transformers_modules(
    copy: Path, tmp_path: Path
) -> None:
    AutoConfig.for_model("qwen3_moe").save_pretrained(tmp_path / "mixture")
    assert read_facts(copy).has_fast_decoder and not read_facts(tmp_path / "mixture").has_fast_decoder


def test_a_family_with_an_activation_that_has_no_kernel_takes_transformers_modules(copy: Path) -> None:
    edit(copy / "config.json", hidden_act="relu")
    assert not read_facts(copy).has_fast_decoder

    edit(copy / "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0})
    with pytest.raises(ModelRefused, match="rope scaling 'dynamic' is not served with its activation"):
        read_facts(copy)
    edit(copy / "config.json", hidden_act="silu")
    assert read_facts(copy).rope_growth is not None


def test_values_that_generation_config_states_are_defaults_even_without_do_sample(copy: Path) -> None:
    stated = dict(temperature=0.3, top_p=0.8, min_p=0.1, repetition_penalty=1.05)
    edit(copy / "generation_config.json", do_sample=False, top_k=-1, **stated)
    facts = read_facts(copy)

    assert facts.defaults == Sampling(top_k=0, **stated)
    assert facts.notes == ()


def test_a_repetition_penalty_that_cannot_be_drawn_with_is_refused(copy: Path) -> None:
    edit(copy / "generation_config.json", repetition_penalty=-1)

    with pytest.raises(ModelRefused, match=r"repetition_penalty is -1, not a number in \[0.01, 100.0\]"):
        read_facts(copy)


def test_without_generation_config_the_ends_are_those_of_config_and_nothing_is_filtered(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    facts = read_facts(copy)

    assert facts.eos_token_ids == (1,)
    assert facts.defaults == Sampling()


def test_what_generation_config_asks_and_is_not_applied_is_noted(copy: Path) -> None:
    edit(copy / "generation_config.json", typical_p=0.9, no_repeat_ngram_size=0, num_beams=1)

    [note] = read_facts(copy).notes
    assert "typical_p = 0.9" in note
    assert note in str(load(copy).config)


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")])
def test_where_config_states_no_dtype_it_is_that_of_the_files(copy: Path, dtype: torch.dtype, name: str) -> None:
    edit(copy / "config.json", dtype=..., torch_dtype=...)
    file = copy / "model.safetensors"
    save_file({key: value.to(dtype) for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert read_facts(copy).dtype == name
    assert next(AutoModelForCausalLM.from_pretrained(copy).parameters()).dtype == dtype


def test_sharded_weights_are_served(tmp_path: Path) -> None:
    path = save_tiny("qwen3", tmp_path / "sharded", shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) > 1

    check_files(path)
    assert load(path).config.checkpoint.model_type == "qwen3"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "sharded", shard_size="100KB")
    shard = sorted(path.glob("*.safetensors"))[1]
    shard.unlink()

    with pytest.raises(ModelRefused, match=f"{shard.name} is missing"):
        load(path)


def test_a_truncated_shard_is_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ModelRefused, match=r"model\.safetensors \(\d+ bytes\) is broken or truncated"):
        load(copy)


def test_an_empty_weights_file_is_named(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"")

    with pytest.raises(ModelRefused, match=r"model\.safetensors \(0 bytes\) is broken or truncated"):
        load(copy)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_named(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "sharded", shard_size="100KB")
    index = path / "model.safetensors.index.json"
    value = json.loads(index.read_text())
    value["weight_map"]["model.layers.9.ghost.weight"] = sorted(set(value["weight_map"].values()))[0]
    index.write_text(json.dumps(value))

    with pytest.raises(ModelRefused, match=r"lacks 1 tensors of the index, first model\.layers\.9\.ghost"):
        load(path)


def test_a_tensor_that_is_not_there_is_never_filled_with_random_numbers(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(ModelRefused, match=r"missing_keys model\.layers\.1\.mlp\.up_proj\.weight"):
        load(copy)


def test_a_tensor_of_another_shape_than_config_says_is_refused(copy: Path) -> None:
    edit(copy / "config.json", intermediate_size=96)

    with pytest.raises(ModelRefused, match=r"mlp\.(up|down|gate)_proj"):
        load(copy)


def test_pickled_weights_are_refused_and_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"evil": torch.zeros(1)}, copy / "pytorch_model.bin")

    with pytest.raises(ModelRefused, match=r"only as pickles \(pytorch_model\.bin\).*safetensors"):
        load(copy)


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()

    with pytest.raises(ModelRefused, match="has no weights"):
        load(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"config\.json is missing"),
        ("{not json", r"config\.json is not readable JSON"),
        ("[1, 2]", r"config\.json holds list, not a JSON object"),
        ("{}", r"config\.json has no model_type"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(copy: Path, content: str | None, message: str) -> None:
    file = copy / "config.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)

    with pytest.raises(ModelRefused, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, not 0"),
        ({"vocab_size": "many"}, r"config\.json"),
        ({"num_attention_heads": None}, r"config\.json"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy / "config.json", **changes)

    with pytest.raises(ModelRefused, match=message):
        load(copy)


@pytest.mark.parametrize("changes", [{"temperature": "hot"}, {"top_p": 1.5}, {"top_k": True}])
def test_sampling_defaults_that_make_no_sense_are_refused(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy / "generation_config.json", **changes)

    with pytest.raises(ModelRefused, match=rf"generation_config\.json: {next(iter(changes))} is"):
        read_facts(copy)


def test_a_local_folder_is_located_as_itself(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)

    assert locate(str(copy)) == locate("mine") == copy.resolve()


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused_without_asking_the_hub(model: str) -> None:
    with pytest.raises(ModelRefused, match="there is no folder"):
        locate(model)


def test_a_file_is_no_model(copy: Path) -> None:
    with pytest.raises(ModelRefused, match="is a file; a model is a folder"):
        locate(str(copy / "model.safetensors"))
