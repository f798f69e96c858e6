"""A bench: a checkpoint to start engines on, and randomness that a name seeds. Same name, same prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from parrot_compat.gpu.config import EngineConfig

from .checkpoints import VOCAB_SIZE

__all__ = ["PAGE_SIZE", "Bench"]

PAGE_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a scenario is given."""

    folder: Path
    random: Random
    device: str = "cpu"

    def config(self, **changes: object) -> EngineConfig:
        plain = EngineConfig(
            model=str(self.folder),
            device=self.device,  # type: ignore[arg-type]
            dtype="float32",
            page_size=PAGE_SIZE,
            kv_tokens=8192,
            max_rows=16,
            step_tokens=64,
            threads=1,
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def tokens(self, length: int) -> tuple[int, ...]:
        return tuple(self.random.randrange(VOCAB_SIZE) for _ in range(length))

    def prompts(self, count: int, most: int = 150) -> list[tuple[int, ...]]:
        return [self.tokens(self.random.randint(1, most)) for _ in range(count)]
