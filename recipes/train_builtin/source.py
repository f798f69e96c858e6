"""Where tasks take their texts from: passages, sentences, functions and lists, of one part of the corpus.

It knows documents and words; nothing of tasks. With `noise` a passage has some of its words replaced, and sometimes
all: a text that can be met only once can only be copied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from recipes.train_builtin import words
from recipes.train_builtin.corpus import Document

_SENTENCE = re.compile(r"[A-Z`*\"'(][^\n]*?(?:\n(?![\n \-*=+|])[^\n]*?)*?[.!?](?=\s|$)")
_WORD = re.compile(r"[A-Za-z]{3,}")
MOST_CHARACTERS = 11_000


class Source:
    def __init__(self, documents: Sequence[Document], rng: Random, noise: float = 0.0, more: float = 0.0) -> None:
        """`noise`: the share of passages that have words replaced; `more`: of those from comments and strings."""
        self.rng = rng
        self.noise = noise
        self.prose = [one.text for one in documents if one.kind in ("topic", "doc") and len(one.text) > 60]
        self.functions = [document.text for document in documents if document.kind == "code"]
        self.docstrings = [
            document.text for document in documents if document.kind == "doc" and "\n\n" in document.text
        ]
        self._long = [text for text in self.prose if len(text) > 2500] or self.prose
        self._prose_sizes = _sizes(self.prose)
        self._more = [document.text for document in documents if document.kind == "more"]
        self._more_sizes = _sizes(self._more)
        self._more_share = more if self._more else 0.0

    def passage(self, characters: int) -> str:
        """About so many characters: it begins and ends with a line, and most often with a paragraph."""
        rng = self.rng
        if self._more_share and rng.random() < self._more_share:
            text = rng.choices(self._more, self._more_sizes)[0]
        else:
            text = rng.choice(self._long) if characters > 1500 else rng.choices(self.prose, self._prose_sizes)[0]
        while len(text) < characters:
            text += "\n\n" + rng.choice(self.prose)
        start = rng.randrange(len(text) - characters + 1)
        if start:
            boundary = "\n\n" if rng.random() < 0.7 else "\n"
            found = text.find(boundary, start)
            start = found + len(boundary) if 0 <= found < len(text) - 40 else 0
        cut = text[start : start + characters]
        for boundary in ("\n\n", ". ", "\n", " "):
            end = cut.rfind(boundary)
            if end > len(cut) * 0.6:
                cut = cut[: end + (boundary == ". ")]
                break
        return self._noisy(cut.strip("\n").rstrip())

    def sentences(self, least: int, characters: int = 2500) -> list[str]:
        """At least so many sentences that follow one another, each on one line."""
        for _ in range(20):
            found = sentences_of(self._noisy(self.passage(characters)))
            if len(found) >= least:
                return found
        return [self.sentence() for _ in range(least)]

    def sentence(self) -> str:
        rng = self.rng
        for _ in range(10):
            found = sentences_of(self.passage(600))
            if found:
                return rng.choice(found)
        return f"The {words.noun(rng)} {words.made_up(rng)} is {words.word(rng)}."

    def function(self, most: int = 900) -> str:
        for _ in range(20):
            text = self.rng.choice(self.functions)
            if len(text) <= most:
                return text
        return f"def {words.identifier(self.rng)}(value):\n    return value"

    def _noisy(self, text: str) -> str:
        rng = self.rng
        if rng.random() >= self.noise:
            return text
        share = rng.choice((0.05, 0.15, 0.5, 1.0))
        return _WORD.sub(lambda found: _like(found[0], rng) if rng.random() < share else found[0], text)

    def soup(self, count: int) -> str:
        """Strings that follow no rule: made-up words, numbers, codes, other scripts, punctuation."""
        rng = self.rng
        makers = (
            words.made_up, words.made_up, words.word, words.word, words.identifier, words.name, words.foreign,
            lambda r: str(words.number(r)), lambda r: str(words.decimal(r)), words.code, words.email, words.date,
        )  # fmt: skip
        some = rng.sample(makers, rng.randrange(1, 6))
        glue = rng.choice((" ", " ", " ", ", ", "\n", "; ", " | ", "-"))
        return glue.join(rng.choice(some)(rng) for _ in range(count))


def _sizes(texts: Sequence[str]) -> list[int]:
    return [min(len(text), 20_000) for text in texts]


def _like(old: str, rng: Random) -> str:
    new = rng.choice((words.made_up, words.piece, words.word))(rng)
    return new.capitalize() if old[0].isupper() else new


def sentences_of(text: str) -> list[str]:
    """The whole sentences of a text, each on one line, between 20 and 400 characters."""
    found = (" ".join(match[0].split()) for match in _SENTENCE.finditer(text))
    return [sentence for sentence in found if 20 <= len(sentence) <= 400 and sentence.count(" ") >= 3]


def lead(text: str) -> str:
    """The first sentence; where there is none, the first line."""
    found = sentences_of(text)
    return found[0] if found else next((line.strip() for line in text.splitlines() if line.strip()), "")
