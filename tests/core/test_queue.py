"""The queue: turns among tenants and apps, and random histories against a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.clock import SimulatedClock
from parrot_compat.core.flow import Flow
from parrot_compat.core.objective import Objective
from parrot_compat.core.prompt import Text
from parrot_compat.core.queue import ReadyQueue
from parrot_compat.core.rendering import Rendered
from parrot_compat.core.task import Task
from parrot_compat.core.variable import Variable

from .conftest import make_call


def ready_task(
    turn: int,
    tenant: str = "",
    order: int = 0,
    prompt_tokens: int = 10,
    slack_s: float = 0.0,
    ready_s: float = 0.0,
    wanted: ObjectiveKind = "latency",
) -> Task:
    """Of an app that began at second `order`."""
    call = make_call(f"{tenant}{order}/{turn}", max_tokens=10)
    flow = Flow(tenant=tenant, session=str(order), order=order, began_s=float(order))
    output = Variable(call.output)
    task = Task(
        call, model="m", output=output, flow=flow, group=None, seed=0, clock=SimulatedClock(), on_end=lambda task: None
    )
    task.objective = Objective(slack_s=slack_s, wanted=wanted)
    task.make_ready(Rendered(content=Text(""), ids=None, prompt_tokens=prompt_tokens, blocks=()))
    task.turn, task.ready_s = turn, ready_s
    return task


def drain(queue: ReadyQueue) -> list[Task]:
    order = []
    while queue:
        (task,) = queue.first(1)
        queue.start(task)
        order.append(task)
        queue.check()
    return order


async def test_an_app_that_began_first_goes_first_and_its_tasks_as_they_became_ready() -> None:
    queue = ReadyQueue()
    late, early, earlier = ready_task(0, order=5), ready_task(2, order=1), ready_task(1, order=1)
    for task in (late, early, earlier):
        queue.put(task)
    assert drain(queue) == [earlier, early, late]


async def test_an_app_that_never_ends_does_not_keep_all_others_waiting() -> None:
    queue = ReadyQueue()
    for turn in range(100):
        queue.put(ready_task(turn, order=0, ready_s=1000.0 + turn))
    newcomer = ready_task(100, order=1000, ready_s=1000.0)
    queue.put(newcomer)
    assert 50 < drain(queue).index(newcomer) < 70  # it goes after what was ready within its head start


async def test_within_an_app_work_with_slack_goes_after_the_rest() -> None:
    queue = ReadyQueue()
    short, long = ready_task(0, slack_s=2.0), ready_task(1)
    queue.put(short)
    queue.put(long)
    assert drain(queue) == [long, short]


async def test_work_with_slack_yields_to_apps_that_begin_within_it_and_to_no_others() -> None:
    queue = ReadyQueue()
    short, soon, late = ready_task(0, order=1, slack_s=4.0), ready_task(1, order=3), ready_task(2, order=9)
    for task in (late, soon, short):
        queue.put(task)
    assert drain(queue) == [soon, short, late]


async def test_what_is_wanted_at_once_counts_from_its_apps_beginning_whatever_its_slack() -> None:
    queue = ReadyQueue()
    less, more = (ready_task(turn, slack_s=slack_s, ready_s=60.0) for turn, slack_s in enumerate((9.9, 10.1)))
    newer = ready_task(2, order=30, ready_s=60.0)
    for task in (newer, more, less):
        queue.put(task)
    assert more.due_s - less.due_s == pytest.approx(0.2)
    assert drain(queue) == [less, more, newer]


async def test_background_work_of_an_old_app_counts_from_when_it_was_ready() -> None:
    queue = ReadyQueue()
    background = ready_task(0, order=0, slack_s=60.0, ready_s=1000.0, wanted="background")
    chat, later = ready_task(1, order=990), ready_task(2, order=1061)
    for task in (background, later, chat):
        queue.put(task)
    assert drain(queue) == [chat, background, later]


async def test_tenants_take_turns_whatever_their_slack() -> None:
    queue = ReadyQueue()
    for turn in range(10):
        queue.put(ready_task(turn, "urgent"))
        queue.put(ready_task(turn + 100, "patient", slack_s=60.0))
    assert [task.flow.tenant for task in drain(queue)[:10]].count("patient") == 5


async def test_looking_changes_nothing() -> None:
    queue = ReadyQueue()
    tasks = [ready_task(turn, tenant) for turn, tenant in enumerate("abcab")]
    for task in tasks:
        queue.put(task)
    assert queue.first(3) == queue.first(3) == queue.first(None)[:3]
    assert len(queue) == 5 and set(queue.first(None)) == set(tasks)
    assert queue.first(None) == drain(queue)


async def test_tenants_take_turns_by_tokens() -> None:
    queue = ReadyQueue()
    for turn in range(30):
        queue.put(ready_task(turn, "long", prompt_tokens=90))
        queue.put(ready_task(100 + turn, "short", prompt_tokens=10))
    started = [task.flow.tenant for task in drain(queue)[:24]]
    assert 3 <= started.count("long") <= 5


async def test_a_tenant_that_comes_late_has_its_turn_soon_and_no_credit_for_its_absence() -> None:
    queue = ReadyQueue()
    for turn in range(50):
        queue.put(ready_task(turn, "flood"))
    for _ in range(20):
        queue.start(queue.first(1)[0])
    queue.first(None)  # looking far ahead must not count as serving
    for turn in range(50, 80):
        queue.put(ready_task(turn, "late"))
    assert [task.flow.tenant for task in drain(queue)[:10]].count("late") == 5


async def test_a_task_that_comes_back_keeps_its_turn_and_is_here_once() -> None:
    queue = ReadyQueue()
    tasks = [ready_task(turn) for turn in range(4)]
    for task in tasks:
        queue.put(task)
    queue.start(tasks[0])
    queue.put(tasks[0])
    queue.check()
    assert drain(queue) == tasks


async def test_what_has_left_does_not_pile_up() -> None:
    queue = ReadyQueue()
    stays = ready_task(0, order=9)
    queue.put(stays)
    for turn in range(1, 2000):
        task = ready_task(turn)
        queue.put(task)
        queue.forget(task)
    assert sum(len(lane.waiting) for lane in queue._lanes.values()) < 100  # memory has no other window
    assert drain(queue) == [stays]


@given(st.lists(st.tuples(st.sampled_from(["put", "start", "forget", "back"]), st.integers(0, 3)), max_size=60))
async def test_every_task_is_here_until_it_is_started_or_forgotten(steps: list[tuple[str, int]]) -> None:
    queue, here, gone = ReadyQueue(), [], []
    for turn, (what, number) in enumerate(steps):
        if what == "put":
            here.append(ready_task(turn, tenant=str(number % 2), order=number))
            queue.put(here[-1])
        elif what == "back" and gone:
            here.append(gone.pop(number % len(gone)))
            queue.put(here[-1])
        elif what == "start" and here:
            task = queue.first(1)[0]
            queue.start(task)
            here.remove(task)
            gone.append(task)
        elif what == "forget" and here:
            queue.forget(here.pop(number % len(here)))
        queue.check()
        assert set(queue.first(None)) == set(here) and len(queue) == len(here)
