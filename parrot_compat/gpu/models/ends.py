"""Which tokens end an answer, by a checkpoint's files.

It knows files; nothing of how a text is ended. The invariant: whatever Hugging Face's `generate` stops at is among
them, and so is the word that the tokenizer's files call the end of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parrot_compat.gpu.models.reading import read_json

__all__ = ["read_ends"]


def read_ends(path: Path, stated: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Their ids, and what is to be noted about them. `stated`: one id, a list of them, or none.

    The tokenizer's own comes behind them, as vLLM has it. Fine-tuning often teaches a model to end its turns with
    another word and tells only the tokenizer: answers would go on to the last token that they may have.
    """
    listed = stated if isinstance(stated, list | tuple) else () if stated is None else (stated,)
    ids = tuple(int(each) for each in listed)
    word, own = _of_tokenizer(path)
    if own is None or own in ids:
        return ids, ()
    note = (
        f"answers end at {word!r} ({own}) too: the tokenizer calls it the end of a text, though neither "
        "generation_config.json nor config.json does (Hugging Face's generate goes on there)"
    )
    return (*ids, own), (note,)


def _of_tokenizer(path: Path) -> tuple[str, int | None]:
    """The word that ends a text, "" if there is none, and its id, if the vocabulary has it."""
    config = _read(path / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # only then does transformers ask the older file
        config |= _read(path / "special_tokens_map.json")
    word = _content(config.get("eos_token"))
    if not word:
        return "", None
    tokenizer = _read(path / "tokenizer.json")
    return word, next((id for content, id in _words(tokenizer, config) if content == word), None)


def _words(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """What tokenizer.json added to its vocabulary, what tokenizer_config.json says of that, and the vocabulary."""
    for token in tokenizer.get("added_tokens") or ():
        yield _content(token), int(token["id"])
    for id, token in (config.get("added_tokens_decoder") or {}).items():
        yield _content(token), int(id)
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, Mapping):
        yield from vocabulary.items()
    else:  # of a unigram model: word and score, in the order of their ids
        yield from ((word, id) for id, (word, _) in enumerate(vocabulary))


def _content(token: Any) -> str:
    """Of a token, which is written as its text or as an object with all its flags."""
    return str(token.get("content") or "") if isinstance(token, Mapping) else str(token or "")


def _read(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
