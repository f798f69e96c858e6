"""What ends an answer, by the files of a checkpoint and of its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.config import CheckpointFacts
from parrot_compat.gpu.models.weights import read_facts
from tests.gpu.vocabularies import STYLES, save_vocabulary

Checkpoint = Callable[[str], Path]
ADDED = {"added_tokens": [{"id": 7, "content": "<|im_end|>"}], "model": {"vocab": {"a": 0}}}
DECODER = {"added_tokens_decoder": {"7": {"content": "<|im_end|>"}}}


@pytest.fixture
def copy(tmp_path: Path, tiny_checkpoint: Checkpoint) -> Path:
    """A checkpoint of the test's own that ends at 2 by its config.json, without a tokenizer."""
    path = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "mine"))
    (path / "generation_config.json").unlink()
    config = json.loads((path / "config.json").read_text())
    write(path, "config.json", config | {"eos_token_id": 2})
    return path


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize("word", ["<|im_end|>", {"content": "<|im_end|>", "special": True}], ids=["text", "object"])
@pytest.mark.parametrize(
    ("vocabulary", "more"),
    [
        (ADDED, {}),
        (None, DECODER),
        ({"model": {"vocab": {"a": 0, "<|im_end|>": 7}}}, {}),
        ({"model": {"vocab": [[str(id), -1.0] for id in range(7)] + [["<|im_end|>", 0.0]]}}, {}),
    ],
    ids=["added", "decoder", "vocabulary", "unigram"],
)
def test_what_the_tokenizer_calls_the_end_of_a_text_ends_answers_too(
    copy: Path, word: Any, vocabulary: dict[str, Any] | None, more: dict[str, Any]
) -> None:
    write(copy, "tokenizer_config.json", {"eos_token": word, **more})
    if vocabulary is not None:
        write(copy, "tokenizer.json", vocabulary)
    facts = read_facts(copy)

    assert facts.eos_token_ids == (2, 7)
    [note] = facts.notes
    assert "'<|im_end|>' (7)" in note and "generate goes on there" in note


def test_ends_that_the_files_state_are_as_they_were(copy: Path) -> None:
    def ends() -> CheckpointFacts:
        facts = read_facts(copy)
        assert facts.notes == ()
        return facts

    assert ends().eos_token_ids == (2,), "there is no tokenizer"
    write(copy, "tokenizer.json", ADDED)
    assert ends().eos_token_ids == (2,), "it says nothing"
    write(copy, "tokenizer_config.json", {"eos_token": None})
    assert ends().eos_token_ids == (2,)
    write(copy, "tokenizer_config.json", {"eos_token": "</s>"})
    assert ends().eos_token_ids == (2,), "there is no such word"
    write(copy, "generation_config.json", {"eos_token_id": [1, 7]})
    write(copy, "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    assert ends().eos_token_ids == (1, 7)


@pytest.mark.parametrize("style", STYLES)
def test_the_end_is_the_one_that_transformers_gives_the_tokenizer(style: str, copy: Path) -> None:
    save_vocabulary(style, copy.parent / style)
    for file in (copy.parent / style).iterdir():
        shutil.copy(file, copy)
    own = AutoTokenizer.from_pretrained(copy).eos_token_id

    assert own is not None
    assert read_facts(copy).eos_token_ids == tuple(dict.fromkeys((2, own)))


def test_a_word_in_the_older_file_counts_as_transformers_counts_it(copy: Path) -> None:
    write(copy, "tokenizer.json", ADDED)
    write(copy, "special_tokens_map.json", {"eos_token": {"content": "<|im_end|>"}})
    assert read_facts(copy).eos_token_ids == (2, 7)
    write(copy, "tokenizer_config.json", {"eos_token": "a", **DECODER})
    assert read_facts(copy).eos_token_ids == (2, 0)


def test_a_tokenizer_file_that_cannot_be_read_is_named(copy: Path) -> None:
    (copy / "tokenizer_config.json").write_text("{broken")

    with pytest.raises(ModelRefused, match=r"tokenizer_config\.json is not readable JSON"):
        read_facts(copy)
