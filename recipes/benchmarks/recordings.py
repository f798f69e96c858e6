"""Recorded answers: what a call is to say, whatever its model would have said.

Random weights say nothing that resembles an app's text, so lengths, copies and repetitions measured on it are fake.
With recordings every forward pass is real and the token it draws is then replaced by the recorded one. A recording is
found by the request's seed, which every server passes down to where tokens are drawn, and which greedy drawing does
not use; nothing else about a request changes.

    recordings/SEED    token ids, one JSON list

It knows files and a tokenizer, no engine; the two sides that draw are `replaying_engine` and `replaying_vllm`.

The invariant: a seed is a hash of its tokens, so one seed is one text in every lane, round and process.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Line", "Prose", "Recordings", "Replay"]

FOLDER = "BENCH_RECORDINGS"
"""Environment variable by which a server that replays is told where recordings are."""


@dataclass(frozen=True, slots=True)
class Line:
    """One answer that is to be given."""

    seed: int
    tokens: int


class Recordings:
    """The folder. Who asks apps writes into it, who draws tokens reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, tuple[int, ...] | None] = {}

    @classmethod
    def of_environment(cls) -> Recordings:
        return cls(Path(os.environ[FOLDER]))

    def add(self, tokens: Sequence[int]) -> Line:
        """Written each time, also where it is there: every lane is to pay the same."""
        text = json.dumps(list(tokens))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1
        draft = self.folder / f".{seed}"
        draft.write_text(text)
        draft.replace(self.folder / str(seed))
        return Line(seed, len(tokens))

    def token(self, seed: int | None, index: int) -> int | None:
        """What is recorded at this place of the answer; `None` where nothing is."""
        if seed is None:
            return None
        if seed not in self._known:
            place = self.folder / str(seed)
            self._known[seed] = tuple(json.loads(place.read_text())) if place.exists() else None
        tokens = self._known[seed]
        return tokens[index] if tokens is not None and index < len(tokens) else None


@dataclass(frozen=True, slots=True)
class Replay:
    """What one app's calls are to say: by name of the call what the workload wrote for it, else fresh prose."""

    recordings: Recordings
    prose: Prose
    app: str
    says: Mapping[str, str]

    def line(self, name: str, max_tokens: int) -> Line:
        text = self.says.get(name)
        return self.recordings.add(self.prose.tokens(f"{self.app} {name}", max_tokens, text))


class Prose:
    """Token ids of text: of the one that is given, or of so many tokens of fresh text."""

    def __init__(self, checkpoint: Path, seed: str) -> None:
        # here, not at the top: where vLLM reads recordings nothing else of this repository is installed
        from .text import open_tokenizer

        self._tokenizer, self._seed = open_tokenizer(checkpoint), seed

    def tokens(self, key: str, count: int, text: str | None) -> list[int]:
        from .text import FreshText

        said = FreshText(self._tokenizer, f"{self._seed} {key}").passage(count) if text is None else text
        ids: list[int] = self._tokenizer.encode(said, add_special_tokens=False).ids
        return ids
