"""Slack: how late a call may be unnoticed, of apps whose lengths are known, and what asking costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from parrot_compat.core.call import CallId
from parrot_compat.core.objective import BASE_SLACK_S
from parrot_compat.core.stages import Node

from .apps import App, call


def test_the_short_arm_of_a_diamond_has_slack() -> None:
    calls = call("l1"), call("l2", "l1"), call("r1"), call("join", "l2", "r1")
    app = App(*calls, l1=3.0, l2=4.0, r1=2.0).awaits("join")
    assert app.slack_s("l1") == 0 and app.slack_s("r1") == 5
    app.over("l1")
    assert app.slack_s("l2") == 0 and app.slack_s("r1") == 2


def test_the_shorter_members_of_a_group_have_slack_up_to_the_longest() -> None:
    app = App(call("a"), call("b"), call("r", "a", "b"), a=1.0, b=4.0).awaits("r")
    assert (app.slack_s("a"), app.slack_s("b")) == (3, 0)
    app.over("b")
    assert app.slack_s("a") == 0 and app.kinds("a") == "l" and app.groups("a") == [None]


def test_in_a_stage_wider_than_any_engine_no_length_gives_slack() -> None:
    maps = [call(f"m{n}") for n in range(100)]
    app = App(*maps, call("r", *(m.id for m in maps)), m0=1.0, m1=100.0).awaits("r")
    assert app.slack_s("m0") == 0


@pytest.mark.parametrize("chains", [2, 20, 30, 32, 40])
def test_of_equal_chains_that_join_none_has_slack_however_many_they_are(chains: int) -> None:
    calls = [call(f"c{n}.{k}", *([f"c{n}.{k - 1}"] if k else [])) for n in range(chains) for k in range(8)]
    seconds = dict.fromkeys((each.id for each in calls), 4.0)
    app = App(*calls, call("join", *(f"c{n}.7" for n in range(chains))), **seconds).awaits("join")
    assert [app.slack_s(f"c{n}.{k}") for n in range(chains) for k in range(8)] == [0] * len(calls)


def test_reduces_of_reduces_have_no_slack_that_they_do_not_have() -> None:
    maps = [call(f"m{n}.{k}") for n in range(12) for k in range(10)]
    reduces = [call(f"r{n}", *(f"m{n}.{k}" for k in range(10))) for n in range(12)]
    app = App(*maps, *reduces, call("top", *(f"r{n}" for n in range(12))), **{"m7.3": 5.0}).awaits("top")
    assert app.slack_s("m7.3") == app.slack_s("r7") == 0 and app.slack_s("m7.0") == app.slack_s("m0.0") == 4


def test_the_short_one_of_many_chains_has_the_slack_of_its_length() -> None:
    calls = [call(f"c{n}.{k}", *([f"c{n}.{k - 1}"] if k else [])) for n in range(20) for k in range(8 if n else 3)]
    app = App(*calls, call("join", "c0.2", *(f"c{n}.7" for n in range(1, 20)))).awaits("join")
    assert app.slack_s("c0.0") == 5 and app.slack_s("c1.0") == 0


def test_what_feeds_background_work_has_its_slack_however_far_upstream() -> None:
    chain = [call(f"c{n}", *([f"c{n - 1}"] if n else [])) for n in range(30)]
    app = App(*chain).awaits("c29", kind="background")
    assert {app.slack_s(each.id) for each in chain} == {BASE_SLACK_S["background"]}


def test_slack_counts_what_is_left_of_a_call_that_runs() -> None:
    calls = call("a"), call("c"), call("b", "c"), call("r", "a", "b")
    app = App(*calls, a=10.0, b=4.0, c=5.0).awaits("r")
    assert app.slack_s("b") == 1
    app.over("c")
    spent = {"a": 5.0}
    assert app.deduction.slack_s(CallId("b"), lambda id: spent.get(id, 0.0)) == 1
    spent = {"a": 50.0}  # longer than expected: it may end at any moment
    assert app.deduction.slack_s(CallId("b"), lambda id: spent.get(id, 0.0)) == 0


def test_slack_looks_at_a_bounded_part_of_the_graph() -> None:
    layers = [[call(f"{n}.{k}", *(f"{n - 1}.{j}" for j in range(8) if n)) for k in range(8)] for n in range(50)]
    app = App(*(each for layer in layers for each in layer)).awaits("49.0")
    looked: list[object] = []

    def base_s(node: object) -> float | None:
        looked.append(node)
        return app.deduction._base_s(node)  # type: ignore[arg-type]  # counts what the question looks at

    from parrot_compat.core.slack import SIGHT, slack_s

    slack_s(app.deduction._nodes[CallId("0.0")], base_s, lambda _: 0.0)
    assert len(looked) <= SIGHT


def test_what_a_chain_of_any_length_feeds_can_be_asked_for_from_any_depth() -> None:
    links = [call(f"c{n}", *([f"c{n - 1}"] if n else [])) for n in range(1000)]
    app = App(*links, call("beside"), call("join", "c999", "beside")).awaits("join")

    def deep(frames: int) -> float:
        return deep(frames - 1) if frames else app.slack_s("beside")

    assert deep(600) == 0


def test_slack_does_not_look_at_every_call_of_a_stage_beside_its_own() -> None:
    maps = [call(f"m{n}.{k}") for n in range(2) for k in range(1000)]
    reduces = [call(f"r{n}", *(f"m{n}.{k}" for k in range(1000))) for n in range(2)]
    app = App(*maps, *reduces, call("top", "r0", "r1")).awaits("top")
    looked: list[Node] = []

    class Noting(dict[Node, None]):
        def __iter__(self) -> Iterator[Node]:
            for node in super().__iter__():
                looked.append(node)
                yield node

    for id in ("r0", "r1"):
        node = app.deduction._nodes[CallId(id)]
        node.sources = Noting(node.sources)
    assert app.slack_s("m0.0") == 0 and not looked
