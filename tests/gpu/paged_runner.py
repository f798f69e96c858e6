"""A runner without a model that really reads its pages: any mistake in paging changes what it draws.

Every slot remembers the token written to it. A row writes its tokens, then reads the whole text back through its page
list; the drawn token is a hash of what was read. Pages keep what their last owner wrote, as real memory does.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import ContextId, Engine, Generate
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import CheckpointFacts, EngineConfig, ResolvedConfig
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.engine import TorchEngine
from parrot_compat.gpu.models.builtin import checkpoint
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from parrot_compat.gpu.wanted import Read, Wanted
from tests.core.engine_contract import collect, settle

VOCABULARY = 4096
HIDDEN = 8
EOS = 2


def next_token(text: Sequence[int], sampling: ResolvedSampling, index: int) -> int:
    """What is drawn after `text`: the same for the same text, and with a temperature for the same seed and index."""
    key: list[Any] = list(text)
    if sampling.temperature > 0:
        key += [sampling.seed, index]
    return 3 + int.from_bytes(blake2b(repr(key).encode(), digest_size=4).digest()) % (VOCABULARY - 3)


def expected(prompt: Sequence[int], tokens: int, **sampling: Any) -> tuple[int, ...]:
    """The answer that an engine must give, whatever else it does."""
    text, resolved = list(prompt), ResolvedSampling(max_tokens=tokens, **sampling)
    for index in range(tokens):
        text.append(next_token(text, resolved, index))
    return tuple(text[len(prompt) :])


def state(text: Sequence[int]) -> npt.NDArray[np.float64]:
    """Of the last token of `text`."""
    digest = blake2b(repr(list(text)).encode(), digest_size=HIDDEN).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float64) - 127.5


def resolved(**fields: Any) -> ResolvedConfig:
    facts = CheckpointFacts(
        path="", model_type="paged", layers=1, heads=1, kv_heads=1, head_dim=1, vocab_size=VOCABULARY,
        max_position_embeddings=128, hidden_size=HIDDEN, eos_token_ids=(EOS,),
    )  # fmt: skip
    decided: dict[str, Any] = dict(
        name="paged", model="paged", checkpoint=facts, served_model_name="paged", device="cpu", dtype="float32",
        context_tokens=128, page_size=4, pages=256, max_rows=8, step_tokens=32, threads=1, enable_prefix_caching=True,
        share_prefixes=True, enforce_eager=True, async_scheduling=False, deterministic=False,
    )  # fmt: skip
    return ResolvedConfig(**(decided | fields))


@dataclass
class PagedRunner:
    config: ResolvedConfig = field(default_factory=resolved)
    steps: list[tuple[BatchRow, ...]] = field(default_factory=list)
    """The rows of every step, in order, with page lists as they were."""
    draws: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Overrides: after this text, this token."""
    fails: list[BaseException] = field(default_factory=list)
    """Raised by the next steps, one each."""
    lost: Exception | None = None
    """What the device says from now on whenever it is asked."""
    gate: threading.Event = field(default_factory=threading.Event)
    """While it is clear, a step does not end."""
    hold_from: int | None = None
    """The gate closes by itself as this step begins, and `inside` is set then and not before."""
    inside: threading.Event = field(default_factory=threading.Event)
    """Set when a step has begun."""

    def __post_init__(self) -> None:
        self.gate.set()
        self.slots = [-1] * (self.config.pages * self.config.page_size)

    def run(self, rows: Sequence[BatchRow]) -> list[Drawn | Read | None]:
        return self.collect(self.launch(rows))

    def collect(self, flight: list[Drawn | Read | None]) -> list[Drawn | Read | None]:
        return flight

    def launch(
        self, rows: Sequence[BatchRow], after: list[Drawn | Read | None] | None = None
    ) -> list[Drawn | Read | None]:
        if after is not None:
            rows = [replace(row, tokens=(after[row.drawn_by],), drawn_by=None) for row in rows]  # type: ignore[index,arg-type]
        self.steps.append(
            tuple(
                BatchRow(tokens=r.tokens, start=r.start, pages=tuple(r.pages), draw=r.draw, wanted=r.wanted)
                for r in rows
            )
        )
        if len(self.steps) == self.hold_from:
            self.gate.clear()
        if self.hold_from in (None, len(self.steps)):
            self.inside.set()
        assert self.gate.wait(30)
        if self.fails:
            raise self.fails.pop(0)
        assert 0 < len(rows) <= self.config.max_rows
        assert sum(len(row.tokens) for row in rows) <= self.config.step_tokens
        written = [slot for row in rows for slot in self._slots(row)[row.start :]]
        assert len(set(written)) == len(written), "two rows write one slot"
        for row in rows:
            for slot, token in zip(self._slots(row)[row.start :], row.tokens, strict=True):
                self.slots[slot] = token
        return [self._draw(row) if row.wanted is None else self._read(row, row.wanted) for row in rows]

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        size = self.config.page_size
        for source, target in pairs:
            self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]

    def check_device(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _slots(self, row: BatchRow) -> list[int]:
        size = self.config.page_size
        end = row.start + len(row.tokens)
        return [row.pages[position // size] * size + position % size for position in range(end)]

    def _read(self, row: BatchRow, wanted: Wanted) -> Read:
        text = [self.slots[slot] for slot in self._slots(row)]
        states = [state(text[: end + 1]) for end in range(row.start, len(text))]
        return Read(states=states[-1] if wanted.pooling == "last" else np.sum(states, axis=0))

    def _draw(self, row: BatchRow) -> int | None:
        if row.draw is None:
            return None
        text = tuple(self.slots[slot] for slot in self._slots(row))
        if row.draw.index >= row.draw.sampling.min_tokens and text in self.draws:
            return self.draws[text]
        return next_token(text, row.draw.sampling, row.draw.index)


_tokenizer: HuggingFaceTokenizer | None = None


def tokenizer() -> HuggingFaceTokenizer:
    global _tokenizer
    if _tokenizer is None:
        _tokenizer = HuggingFaceTokenizer(checkpoint("random"))
    return _tokenizer


def paged_stepper(runner: PagedRunner, **options: Any) -> Stepper:
    return Stepper(runner, tokenizer().text_stream, **options)


class PagedEngine(TorchEngine):
    """The real engine around a runner of pages."""

    def __init__(self, **config: Any) -> None:
        self.runner = PagedRunner(resolved(**config))
        super().__init__(EngineConfig(name="paged"), lambda _: paged_stepper(self.runner))


def generate(context: int, prompt: Sequence[int], max_tokens: int = 8, **fields: Any) -> Generate:
    names = ("parent", "scope")
    sampling = ResolvedSampling(max_tokens=max_tokens, **{k: v for k, v in fields.items() if k not in names})
    rest = {k: v for k, v in fields.items() if k in names}
    return Generate(context=ContextId(context), content=Tokens(tuple(prompt)), sampling=sampling, **rest)


async def started(**config: Any) -> PagedEngine:
    engine = PagedEngine(**config)
    await engine.start()
    return engine


def prompt(tokens: int, salt: int = 0) -> tuple[int, ...]:
    return tuple(random.Random(salt).choices(range(10, 4000), k=tokens))


async def answer(engine: Engine, *arguments: Any, **fields: Any) -> tuple[int, ...]:
    _, chunks = await collect(engine.generate(generate(*arguments, **fields)))
    return tuple(token for chunk in chunks for token in chunk.tokens)


async def drained(engine: PagedEngine, *contexts: int) -> None:
    """Everything is given back: with no context left, free + cached pages are all pages."""
    for context in contexts:
        await engine.free(ContextId(context))
    await settle(engine)
    engine.check()
    config = engine.runner.config
    assert engine.load().free_tokens == config.pages * config.page_size
