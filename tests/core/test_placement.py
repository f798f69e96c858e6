"""Placement: pure, so every case is a table of engines and tasks and what must come out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.placement import Candidate, EngineView, place
from parrot_compat.core.prefix import BLOCK_TOKENS

IDLE = EngineView(
    name="a",
    context_tokens=100_000,
    rows=0,
    waiting_tokens=0,
    prefill_tokens_s=1000.0,
    step_s=0.01,
    call_s=1.0,
)


def engine(name: str, **changes: object) -> EngineView:
    return replace(IDLE, name=name, **changes)  # type: ignore[arg-type]


def task(key: str, prompt_tokens: int = 500, prefix: str = "", shared_blocks: int = 0, **fields: object) -> Candidate:
    blocks = tuple(hash((prefix, index)) for index in range(shared_blocks))
    return Candidate(key=key, prompt_tokens=prompt_tokens, output_tokens=50, blocks=blocks, **fields)  # type: ignore[arg-type]


def home(prefix: str, blocks: int) -> frozenset[int]:
    return frozenset(hash((prefix, index)) for index in range(blocks))


def engines_of(tasks: list[Candidate], engines: list[EngineView]) -> dict[object, str]:
    return {assignment.key: assignment.engine for assignment in place(tasks, engines)}


def test_twelve_parallel_maps_share_two_idle_engines() -> None:
    maps = [task(f"map{n}") for n in range(12)]
    assert Counter(engines_of(maps, [engine("a"), engine("b")]).values()) == {"a": 6, "b": 6}


def test_twelve_maps_with_one_prefix_share_two_idle_engines_too() -> None:
    maps = [task(f"map{n}", 1000, "instruction", shared_blocks=6, group="reduce") for n in range(12)]
    assert Counter(engines_of(maps, [engine("a"), engine("b")]).values()) == {"a": 6, "b": 6}


def test_a_prefix_brings_a_task_home() -> None:
    engines = [engine("a"), engine("b", homes=home("p", 10))]
    (assignment,) = place([task("t", 500, "p", shared_blocks=12)], engines)
    assert (assignment.engine, assignment.reused_tokens) == ("b", 10 * BLOCK_TOKENS)


def test_a_busier_engine_without_the_prefix_never_overrides_its_home() -> None:
    engines = [engine("home", homes=home("p", 10)), engine("busier", rows=3, waiting_tokens=600)]
    assert engines_of([task("t", 500, "p", shared_blocks=10)], engines) == {"t": "home"}
    assert engines_of([task("t", 500, "p", shared_blocks=10)], engines[::-1]) == {"t": "home"}


def test_an_idle_engine_beats_the_home_where_the_wait_costs_more_than_the_reuse() -> None:
    cheap_wait = engine("home", homes=home("p", 10), rows=1, waiting_tokens=200)
    dear_wait = engine("home", homes=home("p", 10), rows=1, waiting_tokens=400)
    wanted = task("t", 500, "p", shared_blocks=10)
    assert engines_of([wanted], [cheap_wait, engine("idle")]) == {"t": "home"}
    assert engines_of([wanted], [dear_wait, engine("idle")]) == {"t": "idle"}


def test_a_task_waits_for_its_full_home_where_that_is_cheaper_than_starting_elsewhere() -> None:
    full = engine("home", homes=home("p", 1000), rows=4, max_rows=4, call_s=1.0)
    assert engines_of([task("t", 32_500, "p", shared_blocks=1000)], [full, engine("idle")]) == {}
    assert engines_of([task("t", 500, "p", shared_blocks=10)], [full, engine("idle")]) == {"t": "idle"}


def test_full_engines_take_nothing() -> None:
    tasks = [task(f"t{n}") for n in range(5)]
    assert len(place(tasks, [engine("a", max_rows=2), engine("b", max_rows=1)])) == 3


def test_once_every_engine_is_full_no_further_task_is_looked_at() -> None:
    looks: Counter[str] = Counter()

    class Homes:
        """Nothing is at home here."""

        def __init__(self, name: str) -> None:
            self.name = name

        def __contains__(self, block: object) -> bool:
            looks[self.name] += 1
            return False

    engines = [engine(name, rows=4, max_rows=4, homes=Homes(name)) for name in "abcdefg"]
    engines.append(engine("free", rows=3, max_rows=4, homes=Homes("free")))
    tasks = [task(f"t{n}", 500, f"p{n}", shared_blocks=10) for n in range(33)]
    assert engines_of(tasks, engines) == {"t0": "free"}
    assert looks == Counter(view.name for view in engines)


def test_a_faster_engine_gets_more() -> None:
    tasks = [task(f"t{n}") for n in range(12)]
    shares = Counter(engines_of(tasks, [engine("slow"), engine("fast", prefill_tokens_s=3000.0)]).values())
    assert shares["fast"] >= 2 * shares["slow"] > 0


def test_a_prompt_goes_where_it_fits() -> None:
    assert engines_of([task("t", 5000)], [engine("small", context_tokens=4096), engine("big")]) == {"t": "big"}
    assert place([task("t", 5000)], [engine("small", context_tokens=4096)]) == ()
    assert engines_of([task("t", 5000)], [engine("text", context_tokens=None)]) == {"t": "text"}


def test_work_with_slack_goes_home_though_it_is_done_later_there() -> None:
    engines = [engine("idle"), engine("home", homes=home("p", 10), rows=1, waiting_tokens=800)]
    assert engines_of([task("t", 500, "p", shared_blocks=10)], engines) == {"t": "idle"}
    assert engines_of([task("t", 500, "p", shared_blocks=10, slack_s=60.0)], engines) == {"t": "home"}
    assert engines_of([task("t", 500, "p", shared_blocks=10, slack_s=0.5)], engines) == {"t": "idle"}


def test_work_with_slack_waits_for_no_row_while_another_engine_has_one() -> None:
    engines = [engine("home", homes=home("p", 10), rows=1, max_rows=1), engine("idle")]
    assert engines_of([task("t", 500, "p", shared_blocks=10, slack_s=60.0)], engines) == {"t": "idle"}


def test_background_work_is_spread_over_engines_too() -> None:
    tasks = [task(f"t{n}", slack_s=60.0) for n in range(12)]
    assert Counter(engines_of(tasks, [engine("a"), engine("b")]).values()) == {"a": 6, "b": 6}


def test_work_with_slack_and_a_short_prefix_in_common_leaves_no_engine_idle() -> None:
    tasks = [task(f"t{n}", 116, "p", shared_blocks=1, slack_s=60.0) for n in range(12)]
    slow = {"step_s": 0.03}
    assert Counter(engines_of(tasks, [engine("a", **slow), engine("b", **slow)]).values()) == {"a": 6, "b": 6}
    many = [task(f"t{n}", 116, "p", shared_blocks=6, slack_s=60.0) for n in range(200)]
    shares = Counter(engines_of(many, [engine("a", **slow), engine("b", **slow)]).values())
    assert abs(shares["a"] - shares["b"]) < 20, "a home is worth some seconds, not the other engine"


def test_two_groups_with_a_prefix_each_are_brought_together() -> None:
    tasks = [
        task(f"{app}{n}", 3300, app, shared_blocks=100, group=app) for n in range(4) for app in ("first", "second")
    ]
    chosen = engines_of(tasks, [engine("a", homes=home("first", 100)), engine("b", homes=home("second", 100))])
    assert {chosen[f"first{n}"] for n in range(4)} == {"a"}
    assert {chosen[f"second{n}"] for n in range(4)} == {"b"}


def test_the_longest_of_a_group_starts_first() -> None:
    tasks = [task("short", 100, group="g"), task("other"), task("long", 900, group="g")]
    assert [assignment.key for assignment in place(tasks, [engine("a")])] == ["long", "short", "other"]


def test_what_can_wait_is_not_pulled_forward_with_what_cannot() -> None:
    reply, memory = task("reply", 200, group="alike"), task("memory", 2000, group="alike", slack_s=60.0)
    row = [engine("a", max_rows=1)]
    assert engines_of([reply, task("other"), memory], row) == engines_of([reply, memory], row) == {"reply": "a"}
    chosen = place([reply, task("other"), memory, task("second", 300, group="alike")], [engine("a")])
    assert [assignment.key for assignment in chosen] == ["reply", "other", "second", "memory"]


def test_a_group_passes_over_no_other_tenants_turn() -> None:
    tasks = [task(f"{tenant}{n}", tenant=tenant, group=tenant) for n in range(3) for tenant in "AB"]
    assert engines_of(tasks, [engine("a", max_rows=4)]).keys() == {"A0", "B0", "A1", "B1"}


views = st.builds(
    engine,
    st.sampled_from("abc"),
    rows=st.integers(0, 6),
    waiting_tokens=st.integers(0, 5000),
    prefill_tokens_s=st.floats(10, 1e5),
    max_rows=st.none() | st.integers(1, 6),
    context_tokens=st.sampled_from([100, 2000, None]),
)
candidates = st.builds(
    task,
    st.uuids().map(str),
    st.integers(1, 3000),
    st.sampled_from("pq"),
    st.integers(0, 20),
    tenant=st.sampled_from("tu"),
    group=st.none() | st.sampled_from("gh"),
    slack_s=st.sampled_from([0.0, 0.3, 60.0]),
)


@given(st.lists(candidates, max_size=12), st.lists(views, max_size=3, unique_by=lambda view: view.name))
def test_whatever_the_load_nothing_is_placed_twice_or_where_it_cannot_be(
    tasks: list[Candidate], engines: list[EngineView]
) -> None:
    assignments = place(tasks, engines)
    assert assignments == place(tasks, engines)
    assert len({assignment.key for assignment in assignments}) == len(assignments)
    given_rows = Counter(assignment.engine for assignment in assignments)
    by_name, by_key = {view.name: view for view in engines}, {task.key: task for task in tasks}
    for assignment in assignments:
        view, wanted = by_name[assignment.engine], by_key[assignment.key]
        assert view.context_tokens is None or wanted.prompt_tokens < view.context_tokens
        assert 0 <= assignment.reused_tokens <= wanted.prompt_tokens
        assert view.max_rows is None or view.rows + given_rows[view.name] <= view.max_rows
    fitting = [
        task
        for task in tasks
        if any(view.context_tokens is None or task.prompt_tokens < view.context_tokens for view in engines)
    ]
    if all(view.max_rows is None for view in engines):
        assert len(assignments) == len(fitting)
