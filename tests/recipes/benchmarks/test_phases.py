"""Where time went: sums that add up, and paragraphs that say no more than the rows do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recipes.benchmarks.cells import AppRecord, Cell
from recipes.benchmarks.clients import CallRecord
from recipes.benchmarks.explanations import explained
from recipes.benchmarks.phases import path, phases
from recipes.benchmarks.results import good_rounds, summarise
from recipes.benchmarks.server_counts import added, counts, read_counts

from . import made_cells
from .made_cells import FACTS

COUNTED = {"queue_s": 1.0, "prefill_s": 2.0, "decode_s": 3.0, "calls": 3.0, "requests": 2.0}


def call(name: str, submitted: float, finished: float) -> CallRecord:
    return CallRecord(name=name, prompt="p", submitted=submitted, finished=finished, output_tokens=4)


def app(key: str, *calls: CallRecord, waited_s: float = 0.0, completion_s: float = 9.0) -> AppRecord:
    made = made_cells.app(key, completion_s, *calls)
    made.waited_s = waited_s
    return made


def cell(*apps: AppRecord, lane: str = "a", server: dict[str, float] | None = None) -> Cell:
    made = made_cells.cell(lane, 0, *apps)
    made.server = server or {}
    return made


# two calls side by side, a second without one, and one more: 8 seconds of calls, 6 of which are over at once
SIDES = (call("one", 1.0, 5.0), call("two", 2.0, 4.0), call("last", 6.0, 8.0))


def seconds(found: dict[str, tuple[float, str]]) -> dict[str, float]:
    return {name.removeprefix("time_"): value for name, (value, unit) in found.items() if unit == "s"}


def test_the_parts_of_an_app_add_up_to_its_completion() -> None:
    found = phases(cell(app("x", *SIDES, waited_s=0.5), server=COUNTED))
    parts = seconds(found)
    assert sum(parts.values()) == pytest.approx(9.0)
    assert parts["tools"] == 0.5
    assert parts["app_code"] == pytest.approx(9.0 - 6.0 - 0.5)
    # of 8 seconds of calls the server knows 6; the app had 6 seconds of calls
    assert parts["queue"] == pytest.approx(6.0 * 1 / 8) and parts["decode"] == pytest.approx(6.0 * 3 / 8)
    assert parts["outside"] == pytest.approx(6.0 * 2 / 8)
    assert found["requests"] == (2.0, "requests")


def test_a_server_that_does_not_count_leaves_calls_whole() -> None:
    parts = seconds(phases(cell(app("x", *SIDES))))
    assert parts == {"app_code": pytest.approx(3.0), "tools": 0.0, "in_calls": pytest.approx(6.0)}


def test_a_server_that_began_before_the_app_asked_leaves_nothing_outside() -> None:
    parts = seconds(phases(cell(app("x", *SIDES), server=COUNTED | {"queue_s": 100.0})))
    assert parts["outside"] == pytest.approx(0.0)
    assert sum(parts.values()) == pytest.approx(9.0)


def test_the_path_of_an_app_is_what_it_waited_for_one_after_another() -> None:
    assert [call.name for call in path(app("x", *SIDES))] == ["last", "one"]
    chain = [call(f"c{n}", 1.0 + n, 2.0 + n) for n in range(5)]
    assert len(path(app("x", *chain))) == 5
    assert path(app("x")) == []


def test_background_is_nobodys_time() -> None:
    background = made_cells.app("b", 100.0, call("slow", 1.0, 100.0), group="background")
    assert seconds(phases(cell(app("x", *SIDES), background)))["in_calls"] == pytest.approx(6.0)
    assert phases(cell(background)) == {}


def test_counts_are_read_by_both_servers_names() -> None:
    text = "\n".join(
        [
            "# HELP vllm:request_queue_time_seconds of requests",
            'vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 1.5',
            'vllm:request_queue_time_seconds_bucket{engine="0",le="0.3"} 7.0',
            'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 3.0',
            'http_requests_total{handler="/metrics",method="GET",status="2xx"} 9.0',
            'parrot_decode_seconds_sum{model="a"} 2.0',
            'parrot_decode_seconds_sum{model="b"} 1e-1',
            "parrot_open_calls 4.0",
        ]
    )
    assert counts(text) == {"queue_s": 1.5, "requests": 3.0, "decode_s": 2.1}
    assert added({"queue_s": 1.0}, {"queue_s": 1.5, "decode_s": 2.0}) == {"queue_s": 0.5, "decode_s": 2.0}


def test_a_server_that_says_nothing_counts_nothing() -> None:
    assert read_counts(None) == {}
    assert read_counts("http://127.0.0.1:9/metrics") == {}


def test_a_paragraph_says_where_the_time_goes_and_what_bounds_it() -> None:
    ours = {"queue_s": 0.0, "prefill_s": 1.0, "decode_s": 7.0, "requests": 3.0}
    cells = [cell(app("x", *SIDES), server=COUNTED), cell(app("x", *SIDES), lane="b", server=ours)]
    text = explained(summarise(good_rounds(cells, "ab"), "ab", FACTS | {"hardware": "2 x a processor"}), "ab")
    assert text.startswith("## m\n\n**W01 chain (refine) summary (v), 50 ms.** a: 9 s, ")
    first, second = text.split(" b: ")
    assert "33% the app's own code" in first and "17% outside the engine" in first and "8% waiting" in first
    assert "2 calls one after another (0.1 s of distance if each is asked for), 2 requests" in first
    assert "9 s (1.00x), 58% drawing answers" in second and "outside" not in second
    assert "Bound by drawing answers; 0.8 of 2 cores are busy." in second


def test_where_all_cores_are_busy_that_is_what_bounds() -> None:
    busy = cell(app("x", *SIDES), server=COUNTED)
    busy.spent = replace(busy.spent, servers_s=1.5)
    text = explained(summarise(good_rounds([busy], "a"), "a", FACTS | {"hardware": "1 x a processor"}), "a")
    assert "Bound by the processors, most of all for the app's own code: 1.0 of 1 cores are busy." in text
    text = explained(summarise(good_rounds([busy], "a"), "a", FACTS), "a")
    assert "Bound by the app's own code; 1.0 cores are busy." in text


def test_who_waits_for_an_engine_is_bound_by_what_the_engine_does() -> None:
    full = cell(app("x", *SIDES), server={"queue_s": 100.0, "prefill_s": 5.0, "decode_s": 9.0, "requests": 1.0})
    text = explained(summarise(good_rounds([full], "a"), "a", FACTS | {"hardware": "2 x a processor"}), "a")
    assert ", 1 request. " in text
    assert "Bound by the engine, which is at other calls, most of all drawing answers; " in text
