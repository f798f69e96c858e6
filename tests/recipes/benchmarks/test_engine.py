"""Measuring engines: token ids in, the same tokens out over HTTP and from the port, and sums that add up."""

from __future__ import annotations

import pytest

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from recipes.benchmarks.checkpoints import facts, folder
from recipes.benchmarks.engine_cases import CASES, Case, Ceilings
from recipes.benchmarks.token_streams import EngineStreams, HttpStreams, TokenStream

from ...server.live import live
from .conftest import scripted


async def test_an_engine_says_the_same_over_http_and_from_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmarks.token_streams.MODEL", "org/scripted")
    prompt = [ord(char) for char in "a prompt of some words"]
    engine = ScriptedEngine(scripted, EngineInfo(name="e", model="m", context_tokens=4096))
    direct = await EngineStreams(engine).run(prompt, 100)
    async with live(scripted) as server:
        far = await HttpStreams(f"{server.url}/v1").run(prompt, 100)
    assert len(direct.tokens) == 100
    assert far.tokens == direct.tokens
    for stream in (direct, far):
        assert sum(count for _, count in stream.arrivals) == 100
        moments = [moment for moment, _ in stream.arrivals]
        assert moments == sorted(moments) and moments[0] >= stream.sent


async def test_a_server_that_refuses_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmarks.token_streams.MODEL", "no such model")
    async with live(scripted) as server:
        with pytest.raises(RuntimeError, match="no such model"):
            await HttpStreams(f"{server.url}/v1").run([65], 4)


class Recorded:
    """Streams that were measured before: what is computed from them is known."""

    def __init__(self, *streams: TokenStream) -> None:
        self.left = list(streams)
        self.asked: list[tuple[int, int]] = []

    async def run(self, prompt: object, max_tokens: int) -> TokenStream:
        self.asked.append((len(prompt), max_tokens))  # type: ignore[arg-type]
        return self.left.pop(0)


async def test_decode_counts_only_while_all_streams_draw() -> None:
    early = TokenStream(0.0, tuple((1.0 + step, 1) for step in range(6)), (1,) * 6)  # 1.0 … 6.0
    late = TokenStream(0.0, tuple((3.0 + step, 2) for step in range(6)), (1,) * 12)  # 3.0 … 8.0
    measured = await Case(kind="decode", size=2).run(Recorded(early, late), "seed", 1000)
    assert measured.value == (3 * 1 + 3 * 2) / (6.0 - 3.0)


async def test_a_repeated_prompt_is_timed_the_second_time() -> None:
    first, second = TokenStream(0.0, ((5.0, 1),), (7,)), TokenStream(10.0, ((10.5, 1),), (7,))
    streams = Recorded(first, second)
    measured = await Case(kind="repeat", size=2048).run(streams, "seed", 1000)
    assert (measured.value, measured.unit) == (0.5, "s")
    assert streams.asked == [(2048, 1), (2048, 1)]


def test_the_roofline_of_decode_is_the_bytes_of_one_step() -> None:
    known = facts(folder("builtin:random"))
    weights = 6 * 256 * (2 * 256 + 2 * 128 + 3 * 704) + 4096 * 256
    ceilings = Ceilings(bytes_per_s=1e9, flops=1e18)
    case = Case(kind="decode", size=1)
    step_s = (4 * weights + 128 * known["kv_bytes_per_token"]) / 1e9
    assert ceilings.share(case, 1 / step_s, known) == pytest.approx(1.0)
    assert ceilings.share(case, 0.5 / step_s, known) == pytest.approx(0.5)
    assert ceilings.share(Case(kind="first", size=64), 1.0, known) is None


def test_the_cases_are_those_of_the_goals() -> None:
    names = {case.name for case in CASES}
    assert {"prefill-512", "prefill-2048", "prefill-8192", "decode-1", "decode-16", "decode-64"} <= names
