"""Mistral's vocabularies, which come in two files: tokenizer.json is read, and split as tekken.json says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.integrations.mistral import tokenizer as two_forms
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from parrot_compat.core.prompt import Text
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

WRONG = r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of so many words that transformers takes it for one of these, and with a pattern that lets `camelCase` be."""
    path = tmp_path_factory.mktemp("mistral")
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"word{number}" for number in range(100_000))]
    tokenizer = Tokenizer(models.BPE(vocab={word: id for id, word in enumerate(words)}, merges=[]))
    split = pre_tokenizers.Split(Regex(WRONG), "isolated")
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_alone])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"model_type": "mistral", "transformers_version": "4.42.0", "vocab_size": 131_072}
    (path / "config.json").write_text(json.dumps(config))
    return path


def with_tekken_file(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / "tekken.json").write_text("{}")
    return target


def words_of(tokenizer: HuggingFaceTokenizer, text: str) -> list[str]:
    split = tokenizer._hf.backend_tokenizer.pre_tokenizer
    assert split is not None
    return [word for word, _ in split.pre_tokenize_str(text)]


def test_beside_a_tekken_file_the_words_are_split_as_mistral_splits_them(folder: Path, tmp_path: Path) -> None:
    as_saved = HuggingFaceTokenizer(folder)
    assert words_of(as_saved, "camelCase 12") == ["camelCase", "Ġ", "12"], "there is nothing to be mended by"
    mended = HuggingFaceTokenizer(with_tekken_file(folder, tmp_path))

    assert words_of(mended, "camelCase 12") == ["camel", "Case", "Ġ", "1", "2"]
    assert mended.decode(mended.encode(Text("camelCase 12"))) == "camelCase 12"


def test_tokenizer_json_is_read_where_mistral_common_is_installed_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_forms, "is_mistral_common_available", lambda: True)
    monkeypatch.setitem(TOKENIZER_MAPPING_NAMES, "mistral", "MistralCommonBackend")  # as it then is

    path = with_tekken_file(folder, tmp_path)
    assert words_of(HuggingFaceTokenizer(path), "camelCase") == ["camel", "Case"]
