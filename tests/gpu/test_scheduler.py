"""The scheduler's decisions: pure views in, a plan out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.gpu.flows import CREDIT_TOKENS, Flows
from parrot_compat.gpu.scheduler import (
    FILL_AHEAD_S,
    LONGEST_SLACK_S,
    due_s,
    in_turn,
    plan_step,
    urgency,
    victims,
)
from parrot_compat.gpu.step import Room, SequenceView

ROOM = Room(rows=8, tokens=32, free_pages=100, page_size=4)


def waiting(id: int, tokens: int = 10, *, salt: int | None = None, **fields: Any) -> SequenceView:
    text = [(id if salt is None else salt) * 1000 + position for position in range(tokens)]
    return SequenceView(**({"id": id, "tokens": text, "computed": 0, "pages": [], "is_started": False} | fields))


def prefilling(id: int, tokens: int = 10, computed: int = 0, **fields: Any) -> SequenceView:
    pages = [id * 100 + page for page in range(-(-tokens // 4))]
    return waiting(id, tokens, **({"computed": computed, "pages": pages, "is_started": True} | fields))


def drawing(id: int, tokens: int = 10, **fields: Any) -> SequenceView:
    return prefilling(id, tokens, tokens - 1, is_drawing=True, **fields)


def ahead(id: int, tokens: int = 10, **fields: Any) -> SequenceView:
    return waiting(id, tokens, **({"is_ahead": True, "due_s": 50.0} | fields))


def planned(*views: SequenceView, served: dict[str, int] | None = None, **room: Any) -> list[tuple[int, int]]:
    plan = plan_step(views, replace(ROOM, **room), served or {})
    assert not plan.preempt and not plan.drop_idle_pages
    return [(row.id, row.tokens) for row in plan.rows]


# ---- what a step computes ------------------------------------------------------------------------------


def test_nothing_inside_is_an_empty_plan() -> None:
    assert planned() == []


def test_every_drawing_row_comes_before_prompts_and_gets_one_token() -> None:
    assert planned(waiting(1, 5), drawing(2), drawing(3)) == [(2, 1), (3, 1), (1, 5)]


def test_prompts_share_what_is_left_of_the_budget_in_chunks() -> None:
    assert planned(drawing(1), waiting(2, 20), waiting(3, 20), waiting(4, 20)) == [(1, 1), (2, 20), (3, 11)]


def test_a_step_never_has_more_rows_than_the_room() -> None:
    assert len(planned(*(waiting(id, 2) for id in range(20)), rows=3)) == 3


def test_a_prompt_already_begun_goes_on_at_its_computed_length() -> None:
    assert planned(prefilling(1, 50, computed=30)) == [(1, 20)]


def test_less_slack_goes_first() -> None:
    assert planned(waiting(1, 20, due_s=30.0), waiting(2, 20, due_s=0.0)) == [(2, 20), (1, 12)]


def test_a_fill_goes_after_a_generate_of_equal_slack_that_came_later() -> None:
    fill, answer = due_s(arrived_s=0.0, slack_s=0.0, is_fill=True), due_s(arrived_s=0.5, slack_s=0.0, is_fill=False)
    views = ahead(1, 32, due_s=fill), waiting(2, 32, due_s=answer)
    assert planned(*views, now_s=0.5) == [(2, 32)]


def test_a_fill_that_is_due_takes_its_turn() -> None:
    fill = due_s(arrived_s=0.0, slack_s=0.0, is_fill=True)
    views = ahead(1, 32, due_s=fill), waiting(2, 32, due_s=0.9)
    assert planned(*views, now_s=FILL_AHEAD_S) == [(1, 32)]


def test_slack_without_end_counts_as_the_longest() -> None:
    assert due_s(arrived_s=5.0, slack_s=float("inf"), is_fill=False) == 5.0 + LONGEST_SLACK_S


def test_nearly_equal_slack_is_one_class_and_much_more_slack_another() -> None:
    assert urgency(waiting(1, due_s=10.0), 0.0) == urgency(waiting(2, due_s=11.0), 0.0)
    assert urgency(waiting(1, due_s=10.0), 0.0) < urgency(waiting(2, due_s=25.0), 0.0)
    assert urgency(waiting(1, due_s=-5.0), 0.0) == urgency(waiting(2, due_s=0.0), 0.0) == 0


# ---- work ahead ------------------------------------------------------------------------------------------


def test_work_ahead_takes_the_tokens_that_prompts_leave() -> None:
    assert planned(ahead(1, 40), drawing(2), waiting(3, 20)) == [(2, 1), (3, 20), (1, 11)]
    assert planned(ahead(1, 40), drawing(2), waiting(3, 31)) == [(2, 1), (3, 31)]


def test_work_ahead_comes_after_prompts_of_much_more_slack() -> None:
    assert planned(ahead(1, 40, due_s=0.1), waiting(2, 20, due_s=LONGEST_SLACK_S)) == [(2, 20), (1, 12)]


def test_work_ahead_goes_on_in_the_order_of_its_slack() -> None:
    assert planned(ahead(1, 40), ahead(2, 20, due_s=1.0)) == [(2, 20), (1, 12)]


def test_work_ahead_that_is_due_is_a_prompt_like_any_other() -> None:
    assert planned(ahead(1, 40, due_s=5.0), waiting(2, 20, due_s=5.0), now_s=5.0) == [(1, 32)]


def test_work_ahead_gives_its_row_to_a_prompt() -> None:
    views = [drawing(1), prefilling(2, 40, computed=8, is_ahead=True, due_s=1.0), waiting(3, due_s=LONGEST_SLACK_S)]
    assert plan_step(views, replace(ROOM, rows=2), {}).preempt == (2,)
    assert planned(*views, rows=3, tokens=11) == [(1, 1), (3, 10)]


def test_work_ahead_gives_its_pages_to_a_prompt() -> None:
    views = [drawing(1), prefilling(2, 40, computed=8, is_ahead=True, due_s=50.0), waiting(3, 40)]
    assert plan_step(views, replace(ROOM, free_pages=3), {}).preempt == (2,)
    due = replace(views[1], due_s=0.0)
    assert planned(drawing(1), due, waiting(3, 40), free_pages=3, tokens=64) == [(1, 1), (2, 32)]


def test_work_ahead_leaves_idle_contexts_alone_while_anything_runs() -> None:
    assert planned(drawing(1), ahead(2, 40), free_pages=3, has_idle=True) == [(1, 1)]
    assert plan_step([ahead(2, 40)], replace(ROOM, free_pages=3, has_idle=True), {}).drop_idle_pages == 7


# ---- fairness --------------------------------------------------------------------------------------------


def test_flows_take_turns_where_slack_is_equal() -> None:
    views = [waiting(id, flow="many") for id in range(1, 6)] + [waiting(9, flow="one")]
    assert [view.id for view in in_turn(views, {}, 0.0)] == [1, 9, 2, 3, 4, 5]


def test_the_flow_that_was_served_least_goes_first() -> None:
    views = [waiting(1, flow="fed"), waiting(2, flow="hungry")]
    assert [view.id for view in in_turn(views, {"fed": 100, "hungry": 10}, 0.0)] == [2, 1]


def test_a_flow_of_long_prompts_gets_as_many_tokens_as_one_of_short_prompts() -> None:
    long = [waiting(id, 100, flow="long") for id in range(1, 4)]
    short = [waiting(id, 10, flow="short") for id in range(10, 40)]
    order = [view.id for view in in_turn([*long, *short], {}, 0.0)]
    assert order.index(2) == 11, "the second long prompt comes after 100 tokens of short ones"


def test_a_newcomer_starts_level_and_nobody_is_owed_more_than_the_credit() -> None:
    flows = Flows()
    flows.enter("old")
    flows.enter("asleep")
    flows.serve("old", 10 * CREDIT_TOKENS)
    flows.enter("new")
    assert flows.served["new"] == flows.served["old"]
    flows.serve("asleep", 1)
    assert flows.served["asleep"] == 9 * CREDIT_TOKENS + 1
    flows.check()


def test_a_flow_without_work_is_forgotten() -> None:
    flows = Flows()
    for _ in range(2):
        flows.enter("a")
    flows.leave("a")
    assert "a" in flows.served
    flows.leave("a")
    assert "a" not in flows.served
    flows.check()


# ---- in-flight prefixes ----------------------------------------------------------------------------------


def test_a_prompt_whose_next_page_is_being_computed_waits_for_it() -> None:
    assert planned(waiting(1, 12, salt=7), waiting(2, 12, salt=7), waiting(3, 5)) == [(1, 12), (3, 5)]


def test_prompts_that_part_before_the_page_ends_do_not_wait() -> None:
    first, second = waiting(1, 12, salt=7), waiting(2, 12, salt=7)
    assert isinstance(second.tokens, list)
    second.tokens[3] += 1
    assert planned(first, second) == [(1, 12), (2, 12)]


def test_a_prompt_that_ends_inside_the_page_waits_if_half_a_page_is_saved() -> None:
    assert planned(waiting(1, 12, salt=7), waiting(2, 2, salt=7)) == [(1, 12)]
    assert planned(waiting(1, 12, salt=7), waiting(2, 1, salt=7)) == [(1, 12), (2, 1)]
    assert planned(waiting(1, 3, salt=7), waiting(2, 3, salt=7)) == [(1, 3)]


def test_a_prompt_that_is_longer_than_the_begun_page_does_not_wait() -> None:
    assert planned(waiting(1, 3, salt=7), waiting(2, 12, salt=7)) == [(1, 3), (2, 12)]


def test_prompts_of_other_namespaces_do_not_wait() -> None:
    assert len(planned(waiting(1, 12, salt=7), waiting(2, 12, salt=7, namespace="other"))) == 2


def test_a_text_that_is_read_waits_for_nobody_and_others_wait_for_it() -> None:
    assert planned(*(waiting(id, 10, salt=7, is_read=True) for id in (1, 2, 3))) == [(1, 10), (2, 10), (3, 10)]
    assert planned(waiting(1, 10, salt=7), waiting(2, 10, salt=7, is_read=True)) == [(1, 10), (2, 10)]
    assert planned(waiting(1, 10, salt=7, is_read=True), waiting(2, 10, salt=7)) == [(1, 10)]


def test_without_a_prefix_cache_nobody_waits() -> None:
    assert len(planned(waiting(1, 12, salt=7), waiting(2, 12, salt=7), shares_prefixes=False)) == 2


def test_a_prompt_goes_on_waiting_while_the_leader_is_inside_its_next_page() -> None:
    leader = prefilling(1, 40, computed=8, salt=7)
    follower = waiting(2, 40, salt=7, computed=8, pages=leader.pages[:2])
    assert planned(leader, follower, tokens=4) == [(1, 4)]
    assert planned(leader, follower) == [(1, 32)]


def test_a_leader_that_has_no_row_in_the_step_is_not_waited_for() -> None:
    leader = prefilling(1, 40, computed=8, salt=7, due_s=50.0)
    follower = waiting(2, 40, salt=7, computed=8, pages=leader.pages[:2])
    assert planned(leader, follower) == [(2, 32)]


def test_equal_tokens_after_different_prefixes_do_not_wait() -> None:
    leader = prefilling(1, 40, computed=8, salt=7)
    follower = waiting(2, 40, salt=7, computed=8, pages=[901, 902])
    assert planned(leader, follower, tokens=64) == [(1, 32), (2, 32)]


# ---- pages -----------------------------------------------------------------------------------------------


def test_a_prompt_starts_only_when_its_whole_text_has_pages() -> None:
    assert planned(drawing(1, 10), waiting(2, 40), free_pages=9) == [(1, 1)]
    assert planned(drawing(1, 10), waiting(2, 40), free_pages=10) == [(1, 1), (2, 31)]


def test_nobody_overtakes_a_prompt_that_waits_for_pages() -> None:
    assert planned(drawing(1), waiting(2, 40), waiting(3, 4), free_pages=9) == [(1, 1)]


def test_idle_contexts_give_way_to_a_prompt_that_waits() -> None:
    plan = plan_step([drawing(1), waiting(2, 40)], replace(ROOM, free_pages=3, has_idle=True), {})
    assert plan.drop_idle_pages == 7 and not plan.rows and not plan.preempt


def test_idle_contexts_give_way_before_anybody_is_preempted() -> None:
    views = [drawing(1, 9, pages=[1, 2]), drawing(2, 9, pages=[3, 4])]
    plan = plan_step(views, replace(ROOM, free_pages=1, has_idle=True), {})
    assert plan.drop_idle_pages == 1 and not plan.preempt


def test_the_least_urgent_latest_sequence_is_preempted_when_drawing_needs_a_page() -> None:
    views = [drawing(1, 9, pages=[1, 2]), drawing(2, 9, pages=[3, 4], due_s=9.0), drawing(3, 9, pages=[5, 6])]
    assert plan_step(views, replace(ROOM, free_pages=2), {}).preempt == (2,)
    equals = [replace(view, due_s=0.0) for view in views]
    assert plan_step(equals, replace(ROOM, free_pages=2), {}).preempt == (3,)


def test_who_waits_gives_up_found_pages_before_who_runs() -> None:
    order = [view.id for view in victims([drawing(1), drawing(2, due_s=9.0), waiting(3, pages=[7])], 0.0)]
    assert order == [3, 2]


def test_the_last_sequence_is_never_preempted() -> None:
    assert victims([drawing(1)], 0.0) == []
    plan = plan_step([drawing(1, 9, pages=[1, 2])], replace(ROOM, free_pages=0), {})
    assert plan.rows and not plan.preempt


def test_who_waits_does_not_take_pages_from_who_has_started() -> None:
    views = [prefilling(1, 40, computed=8, due_s=50.0), waiting(2, 40)]
    assert planned(*views, free_pages=0) == [(1, 32)]


def test_a_prompt_takes_pages_that_others_only_found_and_wait_with() -> None:
    finder = waiting(2, 76, pages=list(range(10)), due_s=50.0)
    views = [drawing(1, 5), finder, waiting(3, 36)]
    assert plan_step(views, replace(ROOM, free_pages=8), {}).preempt == (2,)
    assert planned(drawing(1, 5), replace(finder, pages=[]), waiting(3, 36), free_pages=18) == [(1, 1), (3, 31)]


def test_who_is_before_in_turn_keeps_what_it_has_found() -> None:
    first = waiting(2, 40, pages=list(range(9)), computed=36)
    assert planned(drawing(1, 5), first, waiting(3, 36), free_pages=8) == [(1, 1), (2, 4)]


def test_pages_that_others_hold_too_do_not_come_free() -> None:
    system = list(range(1000, 1010))
    running = drawing(1, 45, pages=[*system, 1, 2])
    finders = [waiting(id, 80, pages=system, computed=40, due_s=50.0) for id in range(3, 9)]
    assert planned(running, waiting(2, 44), *finders, free_pages=8) == [(1, 1)]
    together = [replace(finder, pages=[7, 8, 9]) for finder in finders]
    plan = plan_step([running, waiting(2, 44), *together], replace(ROOM, free_pages=8), {})
    assert plan.preempt == (8, 7, 6, 5, 4, 3), "they have found the same"


def test_what_others_have_found_is_left_to_them_where_it_would_not_do() -> None:
    views = [drawing(1, 5), waiting(2, 76, pages=[1, 2], due_s=50.0), waiting(3, 44)]
    assert planned(*views, free_pages=8) == [(1, 1)]


def test_a_prompt_that_would_then_wait_for_pages_takes_nobodys_row() -> None:
    views = [drawing(1), prefilling(2, 40, computed=8, due_s=50.0), waiting(3, 400)]
    assert planned(*views, rows=2, free_pages=0) == [(1, 1), (2, 31)]
    assert plan_step(views, replace(ROOM, rows=2, free_pages=90), {}).preempt == (2,)


def test_work_ahead_gives_rows_and_pages_together_to_a_prompt() -> None:
    fills = [prefilling(id, 40, computed=8, is_ahead=True, due_s=50.0) for id in (1, 2)]
    assert plan_step([*fills, waiting(3, 60)], replace(ROOM, rows=2, free_pages=0), {}).preempt == (2,)
    assert planned(*fills, waiting(3, 90), rows=2, free_pages=0) == [(1, 32)]


def test_an_urgent_prompt_takes_the_place_of_a_slow_one_when_all_rows_are_taken() -> None:
    slow = [prefilling(id, 40, computed=8, due_s=50.0) for id in (1, 2)]
    assert plan_step([*slow, waiting(3)], replace(ROOM, rows=2), {}).preempt == (2,)
    assert not plan_step([*slow, waiting(3, due_s=50.0)], replace(ROOM, rows=2), {}).preempt


# ---- properties ------------------------------------------------------------------------------------------


@st.composite
def a_view(draw: st.DrawFn, id: int) -> SequenceView:
    tokens, salt = draw(st.integers(1, 60)), draw(st.integers(0, 3))
    kind = draw(st.sampled_from([waiting, prefilling, drawing]))
    fields = {"salt": salt, "due_s": draw(st.floats(-10, 70)), "flow": draw(st.sampled_from("abc"))}
    if kind is prefilling:
        fields["computed"] = draw(st.integers(0, tokens - 1))
    return kind(id, tokens, **fields)


@st.composite
def some_views(draw: st.DrawFn) -> list[SequenceView]:
    return [draw(a_view(id)) for id in range(1, draw(st.integers(1, 12)) + 1)]


@given(some_views(), st.integers(0, 30), st.integers(1, 8), st.integers(1, 40), st.booleans())
def test_every_plan_fits_its_room_and_does_something(
    views: list[SequenceView], free: int, rows: int, tokens: int, has_idle: bool
) -> None:
    room = Room(rows=rows, tokens=tokens, free_pages=free, page_size=4, has_idle=has_idle)
    plan = plan_step(views, room, {})
    by_id = {view.id: view for view in views}
    assert plan.rows or plan.preempt or plan.drop_idle_pages, "work inside, and nothing is done"
    assert len(plan.rows) <= rows and sum(row.tokens for row in plan.rows) <= tokens
    assert len({row.id for row in plan.rows}) == len(plan.rows)
    assert all(1 <= row.tokens <= by_id[row.id].remaining for row in plan.rows)
    assert all(by_id[id].pages for id in plan.preempt)
    assert not (plan.drop_idle_pages and not has_idle)
    assert plan == plan_step(views, room, {}), "same views, same plan"


@st.composite
def some_ahead(draw: st.DrawFn) -> list[SequenceView]:
    """Work ahead that is not due, with texts of their own."""
    views: list[SequenceView] = []
    for id in range(101, draw(st.integers(1, 6)) + 101):
        fields = {"is_ahead": True, "due_s": draw(st.floats(0.5, 70)), "flow": draw(st.sampled_from("abc"))}
        kind, tokens = draw(st.sampled_from([waiting, prefilling])), draw(st.integers(1, 60))
        views.append(kind(id, tokens, **fields))
    return views


def carried_out(views: list[SequenceView], room: Room) -> list[tuple[int, int]]:
    """The rows of a step in which memory is plenty, once everybody who is to give way has done so."""
    while (plan := plan_step(views, room, {})).preempt:
        assert not plan.rows
        views = [
            replace(view, is_started=False, computed=0, pages=[]) if view.id in plan.preempt else view for view in views
        ]
    return [(row.id, row.tokens) for row in plan.rows]


@given(some_views(), some_ahead(), st.integers(1, 8), st.integers(1, 80))
def test_work_ahead_changes_nothing_for_anybody_else(
    views: list[SequenceView], fills: list[SequenceView], rows: int, tokens: int
) -> None:
    room = Room(rows=rows, tokens=tokens, free_pages=10_000, page_size=4)
    beside = carried_out([*fills, *views], room)
    assert [row for row in beside if row[0] < 100] == carried_out(views, room)
    is_fill = [row[0] > 100 for row in beside]
    assert is_fill == sorted(is_fill), "it comes last"


@given(some_views(), some_ahead(), st.integers(1, 200))
def test_no_token_of_a_step_is_left_while_work_ahead_could_use_it(
    views: list[SequenceView], fills: list[SequenceView], tokens: int
) -> None:
    planned = dict(carried_out([*views, *fills], Room(rows=100, tokens=tokens, free_pages=10_000, page_size=4)))
    is_full = sum(planned.values()) == tokens or sum(view.is_started for view in [*views, *fills]) >= tokens
    assert is_full or all(planned.get(fill.id) == fill.remaining for fill in fills)


class Simulation:
    """Steps of plans over sequences that only count; memory is plenty."""

    def __init__(self) -> None:
        self.views: dict[int, SequenceView] = {}
        self.to_draw: dict[int, int] = {}
        self.flows = Flows()
        self.now_s = 0.0
        self.ended: set[int] = set()

    def add(self, view: SequenceView, draws: int) -> None:
        self.views[view.id], self.to_draw[view.id] = view, draws
        self.flows.enter(view.flow)

    def step(self) -> None:
        room = Room(rows=4, tokens=16, free_pages=10_000, page_size=4, now_s=self.now_s)
        while (plan := plan_step(list(self.views.values()), room, self.flows.served)).preempt:
            for id in plan.preempt:
                self.views[id] = replace(self.views[id], is_started=False, computed=0)
        for row in plan.rows:
            view = self.views[row.id]
            self.flows.serve(view.flow, row.tokens)
            view = self.views[row.id] = replace(view, is_started=True, computed=view.computed + row.tokens)
            if view.remaining == 0:
                self.to_draw[row.id] -= 1
                self.views[row.id] = replace(view, tokens=[*view.tokens, 0], is_drawing=True)
                if self.to_draw[row.id] <= 0:
                    del self.views[row.id]
                    self.flows.leave(view.flow)
                    self.ended.add(row.id)
        self.now_s += 0.1


@given(st.data())
def test_nothing_starves_however_much_urgent_work_keeps_coming(data: st.DataObject) -> None:
    simulation = Simulation()
    is_fill = data.draw(st.booleans())
    slack = data.draw(st.sampled_from([0.0, 1.0, 5.0, float("inf")]))
    patient = waiting(1, 30, due_s=due_s(0.0, slack, is_fill), is_ahead=is_fill, flow="patient")
    simulation.add(patient, draws=1)
    arrivals = data.draw(st.lists(st.tuples(st.sampled_from(["a", "patient", "new"]), st.integers(1, 40)), max_size=8))
    id = 1
    while (
        1 not in simulation.ended and simulation.now_s < 100
    ):  # twice as much work comes as can be done, all of it due at once
        for flow, tokens in (arrivals or [("a", 10)]) if len(simulation.views) < 40 else ():
            id += 1
            name = f"new-{id}" if flow == "new" else flow
            simulation.add(waiting(id, tokens, due_s=simulation.now_s, flow=name), draws=2)
        simulation.step()
    assert 1 in simulation.ended, "it never ran"
    assert simulation.now_s < min(slack, LONGEST_SLACK_S) + FILL_AHEAD_S + 25


@pytest.mark.parametrize("heavy", [2, 30])
def test_a_light_flow_is_not_slowed_by_how_much_a_heavy_one_asks(heavy: int) -> None:
    simulation = Simulation()
    for id in range(1, heavy + 1):
        simulation.add(waiting(id, 16, flow="heavy"), draws=1)
    simulation.add(waiting(1000, 16, flow="light"), draws=1)
    steps = 0
    while 1000 not in simulation.ended:
        simulation.step()
        steps += 1
    assert steps == 2
