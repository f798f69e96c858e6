"""Recorded answers: found by the seed, the same for everybody, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

from parrot_compat.core.call import Sampling
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import ResolvedConfig
from parrot_compat.gpu.drawing.draw import Draw
from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.recordings import Prose, Recordings, Replay
from recipes.benchmarks.replaying_engine import ReplayingRunner
from tests.gpu.paged_runner import resolved


def test_the_same_tokens_are_the_same_seed_for_every_reader(tmp_path: Path) -> None:
    line = Recordings(tmp_path).add([5, 6, 7])
    assert Recordings(tmp_path).add([5, 6, 7]) == line
    assert Recordings(tmp_path).add([5, 6, 8]).seed != line.seed
    reader = Recordings(tmp_path)
    assert [reader.token(line.seed, index) for index in range(4)] == [5, 6, 7, None]
    assert 0 < line.seed < 2**31
    assert line.tokens == 3


def test_a_seed_that_is_not_recorded_says_nothing(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path)
    assert recordings.token(None, 0) is None
    assert recordings.token(4711, 0) is None


def test_what_the_workload_wrote_is_said_and_all_else_is_fresh_prose(tmp_path: Path) -> None:
    prose = Prose(folder("builtin:tiny"), "a round")
    replay = Replay(Recordings(tmp_path), prose, "app", {"draft": "a text of some words"})
    written = replay.line("draft", 100)
    assert written.tokens == len(prose.tokens("any", 0, "a text of some words"))
    fresh = replay.line("review", 40)
    assert abs(fresh.tokens - 40) <= 1
    assert replay.line("review", 40) == fresh
    assert replay.line("other", 40).seed != fresh.seed


class OneTwoThree:
    """A runner that draws the row's own start."""

    config: ResolvedConfig

    def __init__(self) -> None:
        self.config = resolved()
        self.copied: list[tuple[int, int]] = []

    def launch(self, rows: Sequence[BatchRow], after: object = None, /) -> Sequence[BatchRow]:
        return rows

    def collect(self, rows: Sequence[BatchRow], /) -> list[int | None]:
        return [None if row.draw is None else row.start for row in rows]

    def copy_pages(self, pairs: Sequence[tuple[int, int]], /) -> None:
        self.copied += pairs

    def check_device(self) -> None:
        raise RuntimeError("lost")


def row(start: int, seed: int | None, index: int = 0, draws: bool = True) -> BatchRow:
    sampling = Sampling(seed=seed).resolve(Sampling(), room=10, seed=seed or 0)
    draw = Draw(sampling=sampling, index=index) if draws else None
    return BatchRow(tokens=(1,), start=start, pages=(0,), draw=draw)


def test_only_drawn_tokens_of_recorded_seeds_are_replaced(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path)
    seed = recordings.add([50, 51]).seed
    computes = OneTwoThree()
    runner = ReplayingRunner(computes, recordings)
    rows = [row(7, seed, 0), row(8, seed, 1), row(9, seed, 2), row(10, None), row(11, seed, draws=False)]
    assert runner.collect(runner.launch(rows)) == [50, 51, 9, 10, None]
    runner.copy_pages([(1, 2)])
    assert computes.copied == [(1, 2)]
    with pytest.raises(RuntimeError, match="lost"):
        runner.check_device()
