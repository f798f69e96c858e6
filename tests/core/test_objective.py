"""Objectives: tables of apps with what each of their calls should be quick at, and random histories against a model."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import Call, CallId, ObjectiveKind, StageLabel
from parrot_compat.core.objective import BASE_SLACK_S, Deduction

from .apps import INF, App, call
from .conftest import make_call


def map_reduce() -> App:
    return App(*(call(f"m{n}") for n in range(4)), call("r", "m0", "m1", "m2", "m3"))


# ---- tables --------------------------------------------------------------------------------------------------------


def test_four_maps_and_a_reduce_that_is_awaited() -> None:
    app = map_reduce().awaits("r")
    assert app.kinds("m0 m1 m2 m3 r") == "ttttl"
    assert app.are_together("m0 m1 m2 m3") and app.groups("r") == [None]


def test_a_chain_is_latency_bound_from_its_first_call_on() -> None:
    app = App(call("a"), call("b", "a"), call("c", "b")).awaits("c")
    assert app.kinds("a b c") == "lll" and app.groups("a b c") == [None] * 3
    assert [app.slack_s(id) for id in "abc"] == [0, 0, 0]


def test_a_chat_and_a_background_job() -> None:
    app = App(call("chat"), call("j0"), call("j1", "j0")).awaits("chat")
    assert app.kinds("chat j0 j1") == "lbb"
    assert app.slack_s("chat") == 0 and app.slack_s("j0") == INF


def test_a_job_that_is_called_background_stays_so_though_it_is_all_there_is() -> None:
    app = App(call("j0"), call("j1", "j0", objective="background"))
    assert app.kinds("j0 j1") == "bb"


def test_awaited_later() -> None:
    app = App(call("first"), call("a"), call("b", "a")).awaits("first")
    assert app.kinds("a b") == "bb"
    changed = app.deduction.begin_await("out-b")
    assert changed == {"a", "b"} and app.kinds("a b") == "ll"
    app.deduction.end_await("out-b")
    assert app.kinds("a b") == "bb"


def test_what_came_since_the_last_await_ended_may_be_what_is_awaited_next() -> None:
    app = App(call("a")).awaits("a")
    app.deduction.end_await("out-a")
    app.add(call("b"), call("c"))
    assert app.kinds("a b c") == "bll" and app.slack_s("c") == 0  # its own await has ended: nobody is behind `a`
    app.awaits("b")
    app.add(call("d"))
    assert app.kinds("a b c d") == "blbb"
    app.deduction.end_await("out-b")
    app.add(call("e"))
    app.deduction.check()
    assert app.kinds("a b c d e") == "bbbbl"


def test_an_app_that_says_nothing_of_what_it_awaits_is_after_what_nothing_reads() -> None:
    app = map_reduce()
    app.add(call("other"))
    assert app.kinds("m0 m1 m2 m3 r other") == "ttttll"


def test_a_call_with_consumers_keeps_its_objective_while_it_is_claimed_or_streamed() -> None:
    app = App(*(call(f"m{n}") for n in range(3)), call("r", "m0", "m1", "m2"), is_delivered=True)
    assert app.kinds("m0 m1 m2 r") == "tttl"  # each on an open connection: a connection is no await


def test_a_plain_request_in_a_session_that_awaits_other_things_is_latency_bound() -> None:
    app = App(call("bulk")).awaits("nothing-yet")
    app.add(call("chat"), is_delivered=True)
    assert app.kinds("bulk chat") == "bl"


def test_what_is_claimed_before_its_consumer_is_known_is_deduced_anew_when_it_comes() -> None:
    app = App(call("m0"), call("m1"), is_delivered=True)
    assert app.kinds("m0 m1") == "ll"
    app.add(call("r", "m0", "m1"), is_delivered=True)
    assert app.kinds("m0 m1 r") == "ttl"


def test_a_map_that_is_awaited_itself_is_latency_bound_and_placed_with_the_others() -> None:
    app = map_reduce().awaits("r", "m1")
    assert app.kinds("m0 m1 m2 m3 r") == "tlttl" and app.are_together("m0 m1 m2 m3")


def test_a_diamond() -> None:
    app = App(call("top"), call("left", "top"), call("right", "top"), call("join", "left", "right")).awaits("join")
    assert app.kinds("top left right join") == "lttl"  # all wait for the top: it is a chain's link
    assert app.are_together("left right")


def test_two_sinks_one_awaited() -> None:
    app = App(call("a"), call("b"), call("want", "a"), call("extra", "b")).awaits("want")
    assert app.kinds("a b want extra") == "lblb"


def test_what_feeds_both_an_awaited_and_an_idle_sink_is_wanted_as_the_awaited_one() -> None:
    app = App(call("a"), call("want", "a"), call("extra", "a")).awaits("want")
    assert app.kinds("a want extra") == "llb" and app.slack_s("a") == 0


def test_maps_read_by_the_same_two_reduces_are_one_group() -> None:
    maps = [call(f"m{n}") for n in range(3)]
    app = App(*maps, call("r0", "m0", "m1", "m2"), call("r1", "m0", "m1", "m2")).awaits("r0", "r1")
    assert app.are_together("m0 m1 m2") and app.kinds("m0 m1 m2 r0 r1") == "tttll"


def test_a_map_with_a_chain_of_its_own_is_not_of_the_group() -> None:
    app = App(call("m0"), call("m1"), call("m2"), call("x", "m0"), call("r", "m0", "m1", "m2")).awaits("r", "x")
    assert app.groups("m0") == [None] and app.kinds("m0") == "l" and app.are_together("m1 m2")


def test_two_stages_of_maps_are_two_groups() -> None:
    firsts, seconds = [call(f"f{n}") for n in range(3)], [call(f"s{n}", f"f{n}") for n in range(3)]
    app = App(*firsts, *seconds, call("r", "s0", "s1", "s2")).awaits("r")
    assert app.are_together("f0 f1 f2") and app.are_together("s0 s1 s2")
    assert app.groups("f0") != app.groups("s0") and app.kinds("f0 s0 r") == "ttl"


def test_a_conversation_that_rereads_all_its_turns_is_a_chain() -> None:
    turns = [call(f"t{n}", *(f"t{before}" for before in range(n))) for n in range(5)]
    app = App(*turns).awaits("t4")
    assert app.kinds("t0 t1 t2 t3 t4") == "lllll" and set(app.groups("t0 t1 t2 t3 t4")) == {None}


def test_the_papers_multi_agent_programme() -> None:
    """Architect → coders → reviewers (each reads all code) → revisers → the next round's reviewers → …"""
    files = range(3)
    code = [call(f"code{f}", "plan") for f in files]
    review = [call(f"review{f}", *(f"code{g}" for g in files)) for f in files]
    revise = [call(f"revise{f}", f"code{f}", f"review{f}") for f in files]
    app = App(call("plan"), *code, *review, *revise, call("merge", *(f"revise{f}" for f in files))).awaits("merge")
    assert app.kinds("plan merge") == "ll"
    for stage in ("code", "review", "revise"):
        ids = " ".join(f"{stage}{f}" for f in files)
        assert app.are_together(ids) and app.kinds(ids) == "ttt"


def test_two_apps_that_share_a_prefix_share_no_objective() -> None:
    """Sharing is placement's business (`Graph.groups`, block hashes); what each app awaits is its own."""
    chat, bulk = App(call("a")).awaits("a"), App(call("a"), call("b")).awaits("b")
    assert chat.kinds("a") == "l" and bulk.kinds("a b") == "bl"


def test_a_stage_whose_last_finish_counts_is_wanted_as_what_reads_it() -> None:
    app = map_reduce().awaits("r")
    assert app.kinds("m0") == "t" and app.deduction.wanted(CallId("m0")) == "latency"
    changed = app.deduction.end_await("out-r")
    assert changed == {"m0", "m1", "m2", "m3", "r"} and app.deduction.wanted(CallId("m0")) == "background"
    app.deduction.begin_await("out-r", "throughput")
    assert app.kinds("m0") == "t" and app.deduction.wanted(CallId("m0")) == "throughput"
    changed = app.deduction.begin_await("out-r")
    assert "m0" in changed and app.kinds("m0") == "t" and app.deduction.wanted(CallId("m0")) == "latency"


def test_a_throughput_objective_holds_for_all_that_feeds_it() -> None:
    app = App(call("a"), call("b", "a"), call("c", "b", objective="throughput"))
    assert app.kinds("a b c") == "ttt" and app.slack_s("a") == BASE_SLACK_S["throughput"]


def test_an_await_may_say_what_it_is_for() -> None:
    app = App(call("a"), call("b", "a")).awaits("b", kind="throughput")
    assert app.kinds("a b") == "tt"
    app.awaits("b")
    assert app.kinds("a b") == "ll"


def test_an_await_that_says_nothing_leaves_the_call_its_own_objective() -> None:
    assert App(call("a", objective="background")).awaits("a").kinds("a") == "b"


def test_what_an_awaited_call_needs_is_not_held_up_by_calling_it_background() -> None:
    app = App(call("a", objective="background"), call("b", "a")).awaits("b")
    assert app.kinds("a b") == "ll" and app.slack_s("a") == 0


def test_the_app_may_announce_a_stage_before_it_is_all_there() -> None:
    app = App(call("first", stage=StageLabel(name="s", size=5)), is_delivered=True)
    assert app.kinds("first") == "t"
    app.add(call("second", stage=StageLabel(name="s", size=5)), is_delivered=True)
    assert app.are_together("first second")


def test_of_a_labelled_stage_whose_answers_are_read_one_by_one_none_is_passed_over() -> None:
    app = App(*(call(f"m{n}", stage=StageLabel(name="map", size=4)) for n in range(4)), call("other")).awaits("m0")
    assert [app.deduction.wanted(CallId(f"m{n}")) for n in range(4)] == ["latency"] * 4
    assert app.slack_s("m3") == 0 and app.kinds("other") == "b"
    app.deduction.end_await("out-m0")
    app.over("m0")
    assert app.slack_s("m3") == 0 and app.slack_s("other") == BASE_SLACK_S["background"]


def test_a_labelled_stage_of_which_nothing_is_awaited_is_passed_over_as_any_call_is() -> None:
    stage = [call(f"m{n}", stage=StageLabel(name="map", size=2)) for n in range(2)]
    app = App(*stage, call("other")).awaits("other")
    assert [app.deduction.wanted(CallId(f"m{n}")) for n in range(2)] == ["background"] * 2
    app.awaits("m0", kind="throughput")
    assert [app.deduction.wanted(CallId(f"m{n}")) for n in range(2)] == ["throughput"] * 2


def test_an_await_on_a_variable_that_a_call_writes_later() -> None:
    app = App(call("other"))
    app.awaits("late")
    app.add(call("late"))
    assert app.kinds("other late") == "bl"


def test_a_consumer_that_was_cancelled_wants_nothing_any_more() -> None:
    app = App(call("a"), call("want", "a"), call("idle", "a")).awaits("want")
    app.over("want")
    assert app.kinds("a idle") == "bb"


# ---- cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_chain_is_deduced_link_by_link_at_the_cost_of_a_link(is_backwards: bool) -> None:
    links = [call(str(n), f"{n - 1}" if n else "$start") for n in range(2000)]
    deduction = Deduction()
    told = 0
    for link in reversed(links) if is_backwards else links:
        told += len(deduction.add([link], seconds=[1.0], is_delivered=False))
        told += len(deduction.begin_await(link.output))
    assert told <= 2 * 2000  # each is news when it comes and when it is awaited: a link changes none before it
    deduction.check()


# ---- random histories ----------------------------------------------------------------------------------------------


def plain_groups(calls: list[Call]) -> dict[str, frozenset[str]]:
    """Stages as they are defined, without any cleverness: found again and again until nothing changes."""
    readers = {c.id: [r.id for r in calls if c.output in r.prompt.inputs()] for c in calls}
    unit: dict[str, frozenset[str]] = {c.id: frozenset([c.id]) for c in calls}
    for _ in range(len(calls) + 1):
        members: defaultdict[object, set[str]] = defaultdict(set)
        for c in calls:
            if c.stage is not None:
                members[c.stage.name].add(c.id)
            elif readers[c.id]:
                members[frozenset(unit[r] for r in readers[c.id])].add(c.id)
        unit = {c.id: frozenset([c.id]) for c in calls} | {
            id: frozenset(stage) for stage in members.values() for id in stage
        }
    return {id: stage for id, stage in unit.items() if len(stage) > 1}


def plain_ranks(
    calls: list[Call],
    awaits: list[tuple[str, ObjectiveKind | None]],
    passed_over: set[str],
    delivered: set[str],
    labels: dict[str, int],
) -> dict[str, int]:
    kinds = ["latency", "throughput", "background"]
    ranks: dict[str, int] = {}
    while len(ranks) < len(calls):
        for c in calls:
            readers = [r for r in calls if c.output in r.prompt.inputs()]
            if c.id in ranks or any(r.id not in ranks for r in readers):
                continue
            own = [kinds.index(c.objective)] if c.objective else []
            for variable, kind in awaits:
                if variable == c.output:
                    own.append(kinds.index(kind or c.objective or "latency"))
            wanted = own + [ranks[r.id] for r in readers]
            unread = labels.get(c.stage.name, 2) if c.stage else 2
            ranks[c.id] = min(wanted) if wanted else unread if c.id in passed_over else 0
            if not own and c.id in delivered and all(rank == 2 for rank in wanted):
                ranks[c.id] = 0
    return ranks


def plain_labels(
    calls: list[Call], awaits: list[tuple[str, ObjectiveKind | None]], before: dict[str, int]
) -> dict[str, int]:
    """By label, the most that an output of its calls has been awaited as while some of them were there."""
    kinds = ["latency", "throughput", "background"]
    labels = {c.stage.name: before.get(c.stage.name, 2) for c in calls if c.stage}
    for c in calls:
        for variable, kind in awaits:
            if c.stage and variable == c.output:
                said = [kinds.index(kind or c.objective or "latency"), kinds.index(c.objective or "background")]
                labels[c.stage.name] = min(labels[c.stage.name], *said)
    return labels


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_deduced_is_what_the_plain_rules_say(seed: int) -> None:
    rng, deduction = random.Random(seed), Deduction()
    live: list[Call] = []
    awaits: list[tuple[str, ObjectiveKind | None]] = []
    known, unwritten, passed_over, delivered = ["x0", "x1"], ["p0", "p1"], set[str](), set[str]()
    labels: dict[str, int] = {}
    for number in range(rng.randrange(3, 50)):
        chance = rng.random()
        if chance < 0.65:
            output, pool = f"v{number}", known + unwritten
            reads = rng.sample(pool, min(len(pool), rng.choice([0, 1, 1, 2, 3])))
            if unwritten and chance < 0.06:
                output, reads = unwritten.pop(), []  # the producer of what was read before
            objective = rng.choice([None] * 9 + ["latency", "throughput", "background"])
            stage = rng.choice([None] * 6 + [StageLabel(name=name) for name in ("s", "t")])
            made = make_call(f"c{number}", "t", *reads, output=output)
            live.append(replace(made, objective=objective, stage=stage))
            is_delivered = rng.random() < 0.3
            deduction.add(live[-1:], seconds=[rng.choice([1.0, 2.0, 5.0])], is_delivered=is_delivered)
            delivered |= {live[-1].id} if is_delivered else set()
            known.append(output)
            if rng.random() < 0.2:
                some = rng.choice(live).id
                deduction.deliver(some, some not in delivered)
                delivered ^= {some}
        elif chance < 0.8 and live:
            deduction.remove(live.pop(rng.randrange(len(live))).id)
        elif chance < 0.92:
            awaits.append((rng.choice(known), rng.choice([None, "latency", "throughput", "background"])))
            deduction.begin_await(*awaits[-1])
        elif awaits:
            deduction.end_await(*awaits.pop(rng.randrange(len(awaits))))
        if awaits:
            passed_over |= {c.id for c in live}
        labels = plain_labels(live, awaits, labels)
    deduction.check()
    groups, ranks = plain_groups(live), plain_ranks(live, awaits, passed_over, delivered, labels)
    for c in live:  # each that is only delivered is awaited by itself
        read = [ranks[r.id] for r in live if c.output in r.prompt.inputs()]
        is_said = c.objective is not None or any(variable == c.output for variable, _ in awaits)
        if c.stage is None and c.id in groups and c.id in delivered and not is_said and all(rank == 2 for rank in read):
            groups = {id: stage - {c.id} for id, stage in groups.items() if id != c.id}
    ours: defaultdict[str | None, set[str]] = defaultdict(set)
    for c in live:
        ours[deduction.group(c.id)].add(c.id)
        own_latency = c.objective == "latency" or any(
            variable == c.output and (kind or c.objective or "latency") == "latency" for variable, kind in awaits
        )
        rank = 1 if c.id in groups and not ranks[c.id] and not own_latency else ranks[c.id]
        assert deduction.kind(c.id) == ["latency", "throughput", "background"][rank]
        assert deduction.slack_s(c.id) >= 0
    ours.pop(None, None)
    assert {frozenset(stage) for stage in ours.values()} == set(groups.values())


def test_background_work_that_reads_an_answer_takes_it_from_nobody_who_holds_its_connection() -> None:
    app = App(call("a"), is_delivered=True)
    app.add(call("b", "a", objective="background"))
    assert app.kinds("a b") == "lb" and app.deduction.slack_s(CallId("a")) == 0.0
    app.deduction.deliver(CallId("a"), False)
    app.deduction.check()
    assert app.kinds("a b") == "bb", "nobody holds it any more"
    both = App(call("a"), call("b"), is_delivered=True)
    both.add(call("c", "a", "b", objective="background"))
    assert both.kinds("a b c") == "llb" and both.groups("a b") == [None, None], "each is awaited by itself"
    app.add(call("c", "a", objective="throughput"))
    app.deduction.deliver(CallId("a"), True)
    app.deduction.check()
    assert app.kinds("a") == "t", "who reads it decides"
