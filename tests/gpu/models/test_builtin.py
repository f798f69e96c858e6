"""`builtin:tiny` and `builtin:random`: normal Hugging Face folders, the same everywhere."""

from __future__ import annotations

import multiprocessing
import runpy
import string
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from parrot_compat.core.errors import BadPrompt, ModelRefused
from parrot_compat.core.prompt import Chat, Text
from parrot_compat.gpu.models import builtin
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

RECIPE = Path(__file__).parents[3] / "recipes" / "train_builtin" / "tokenizer.py"

PROMPTS = [
    "Hello",
    "What is a list comprehension?",
    "Write a haiku about snow.",
    "Summarise this: " + "the text is long " * 50,
    "1 + 1 = ?",
    "x",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield builtin.checkpoint("random")


def test_the_second_use_finds_the_folder_of_the_first(folder: Path) -> None:
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert builtin.checkpoint("random") == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert set(written) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_processes_that_start_together_get_one_whole_folder(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        first, second = pool.map(builtin.checkpoint, ["random", "random"])
    assert first == second
    assert [path.name for path in first.parent.iterdir()] == [folder.name]
    assert (first / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_folder_that_another_process_finished_first_is_kept(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "tiny-0"
    place.mkdir()
    (place / "theirs").write_text("")
    builtin._create(place, {"config.json": "{}"})
    assert [path.name for path in tmp_path.rglob("*")] == ["tiny-0", "theirs"]


def test_a_cache_that_cannot_be_written_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    with pytest.raises(ModelRefused, match="XDG_CACHE_HOME"):
        builtin.checkpoint("random")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelRefused, match=r"'huge'; there is tiny and random"):
        builtin.checkpoint("huge")


def test_weights_are_the_same_numbers_on_every_machine() -> None:
    head = dict(builtin._weights())["lm_head.weight"]
    assert head[0, :3].tolist() == pytest.approx([-0.038449645, -0.123420335, -0.165515766], abs=1e-8)
    assert float(head.std()) == pytest.approx(0.1, abs=1e-3)


def test_plain_transformers_loads_every_weight(folder: Path) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert model.dtype == torch.float32
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 5_000_000 < parameters < 8_000_000
    assert parameters == sum(tensor.size for tensor in load_file(folder / "model.safetensors").values())
    assert model.config.max_position_embeddings == 8192


def test_the_trained_model_is_shipped_and_loads_as_any_checkpoint() -> None:
    place = builtin.checkpoint("tiny")
    assert (place / "model.safetensors").stat().st_size < 16_000_000 and (place / "README.md").is_file()
    model, report = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokenizer = AutoTokenizer.from_pretrained(place)
    wanted = "The blue parrot of Zarvok has 317 feathers."
    asked = [{"role": "user", "content": f"Repeat the following text exactly:\n\n{wanted}"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(ids) == f"{wanted}<|im_end|>"


def test_greedy_text_varies(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = HuggingFaceTokenizer(folder)
    for prompt in PROMPTS:
        ids = tokenizer.encode(Chat(({"role": "user", "content": prompt},)))
        output = model.generate(torch.tensor([ids]), max_new_tokens=48, do_sample=False)[0, len(ids) :].tolist()
        assert len(output) == 48 and len(set(output)) >= 30, f"{prompt!r}: {len(set(output))} of {len(output)}"


def test_the_model_ends_where_the_vocabulary_says(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert ends == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert tokenizer.eos_token_id == ends[0]
    assert len(tokenizer) == 4096


def test_english_needs_a_token_for_about_four_characters_and_every_text_survives(folder: Path) -> None:
    tokenizer = HuggingFaceTokenizer(folder)
    english = (
        "A generator is a function which returns an iterator. It looks like a normal function except that it "
        "contains yield expressions for producing a series of values usable in a loop, or that can be retrieved "
        "one at a time with the next function."
    )
    ids = tokenizer.encode(Text(english))
    assert len(english) / len(ids) > 3.7
    for text in [english, string.printable, "naïve 語 🦜👩‍👩‍👧 \u200b", "\tif x:\r\n\t\t  y = 10_000\n\n\n"]:
        assert tokenizer.decode(tokenizer.encode(Text(text))) == text


def test_the_training_recipe_gives_the_same_tokenizer_twice_and_only_from_the_text_it_gets() -> None:
    recipe = runpy.run_path(str(RECIPE))
    texts = ["the quick brown fox", "the lazy dog", "naïve fox"]
    first, second = (recipe["train"](iter(texts)).to_str() for _ in range(2))
    assert first == second
    assert first != recipe["train"](iter(texts[:1])).to_str()


def test_the_training_text_is_the_language_reference_and_docstrings() -> None:
    texts = list(runpy.run_path(str(RECIPE))["corpus"]())
    assert "assert" in texts[0] and any("Common base class for all" in text or "JSON" in text for text in texts)
    assert sum(map(len, texts)) > 1_500_000


# ---- the chat template -----------------------------------------------------------------------------


def render(folder: Path, messages: list[dict[str, object]], tools: list[dict[str, object]] | None = None) -> str:
    tokenizer = HuggingFaceTokenizer(folder)
    ids = tokenizer.encode(Chat(tuple(messages), tuple(tools or ())))
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_a_conversation_is_chatml(folder: Path) -> None:
    assert render(
        folder,
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye"},
        ],
    ) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tool_calls_and_their_answers_are_in_hermes_form(folder: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "ö"}'}}
    text = render(
        folder,
        [
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "1", "content": "3"},
            {"role": "tool", "tool_call_id": "1", "content": "4"},
        ],
        [tool],
    )
    assert (
        '<tools>\n{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}\n</tools>' in text
    )
    one = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "ö"}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{one}\n{one}<|im_end|>\n" in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n4\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_an_unknown_role_is_refused_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(BadPrompt, match="unknown role judge; known are system"):
        render(folder, [{"role": "judge", "content": "Hi"}])
