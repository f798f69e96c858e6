"""The engine's scheduler decides what one step computes. It changes nothing: same views, same room, same plan.

1. Every sequence that is drawing gets its one token.
2. What is left of the token budget goes to prompts, in chunks: the most urgent class first; in a class the flow that
   was served least; in a flow the first that came.
3. What prompts leave goes to work ahead: fills that nobody waits for yet, ordered likewise. They take tokens, rows and
   free pages that nobody else wants, and give them back to any prompt that does. A fill that is due, or that somebody
   waits for, is a prompt like any other.
4. A waiting prompt starts when all its tokens have pages. It is held back while a row of this very step computes its
   next page, or at least half a page that its text ends with: a step later it finds that computed. Since the row it
   waits for runs, it cannot wait for ever. A text that is read waits for no row: it computes all of itself anyway.
5. Where pages run out, idle contexts give theirs; then the least urgent, latest sequence goes back to waiting, never
   the last one. Who waits does not take pages from who has started, unless that is work ahead; it does from those
   who wait behind it. Nobody gives up its row to one that would then wait for pages.

Urgency: left_s = due_s - now_s (a fill is due `FILL_AHEAD_S` later than a generate); class 0 is left_s <= 0, the
others double: up to 0.1 s, 0.2 s, 0.4 s, …; those of work ahead come behind all of these. As time passes all work comes
into class 0, so nothing starves.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

from .step import PlannedRow, Room, SequenceView, StepPlan

__all__ = ["FILL_AHEAD_S", "LONGEST_SLACK_S", "due_s", "in_turn", "plan_step", "urgency", "victims"]

FILL_AHEAD_S = 1.0
"""For this long beyond its slack a fill is work ahead, which takes only what is left over."""
LONGEST_SLACK_S = 60.0
"""Slack beyond this counts as this much: even work that nobody awaits gets done under steady load."""
SLACK_CLASS_S = 0.1
"""Width of the first class with slack left: less than a person, or a batch of prompts, would notice."""
FINDERS = 64
"""A prompt that lacks pages looks at so many who wait behind it for what they have found, in each step."""
AHEAD = 64
"""So many classes lie before the first one of work ahead: more than any slack reaches."""


def due_s(arrived_s: float, slack_s: float, is_fill: bool) -> float:
    """When the work must run to be in time."""
    return arrived_s + min(slack_s, LONGEST_SLACK_S) + (FILL_AHEAD_S if is_fill else 0.0)


def urgency(view: SequenceView, now_s: float) -> int:
    """The class of a sequence's slack; 0 is the most urgent."""
    left_s = view.due_s - now_s
    if left_s <= 0:
        return 0
    return 1 + int(left_s / SLACK_CLASS_S).bit_length() + (AHEAD if view.is_ahead else 0)


def _is_ahead(view: SequenceView, now_s: float) -> bool:
    return view.is_ahead and view.due_s > now_s


def victims(views: Sequence[SequenceView], now_s: float) -> list[SequenceView]:
    """Who gives up pages, first to go first: who waits before who runs; then the least urgent, latest. One remains."""
    by_worth = sorted(views, key=lambda view: (not view.is_started, urgency(view, now_s), view.id))
    return [view for view in reversed(by_worth[1:]) if view.pages]


def in_turn(views: Sequence[SequenceView], served: Mapping[str, int], now_s: float) -> Iterator[SequenceView]:
    """Prompts in the order in which they are computed. A flow's turn passes when its next prompt has been given out."""
    classes: dict[int, list[SequenceView]] = {}
    for view in views:
        classes.setdefault(urgency(view, now_s), []).append(view)
    turns = dict(served)
    for _, equals in sorted(classes.items()):
        flows: dict[str, deque[SequenceView]] = {}
        for view in sorted(equals, key=lambda view: view.id):
            flows.setdefault(view.flow, deque()).append(view)
        heap = [(turns.get(flow, 0), queue[0].id, flow) for flow, queue in flows.items()]
        heapq.heapify(heap)
        while heap:
            turn, _, flow = heapq.heappop(heap)
            view = flows[flow].popleft()
            yield view
            turns[flow] = turn + view.remaining
            if flows[flow]:
                heapq.heappush(heap, (turns[flow], flows[flow][0].id, flow))


def plan_step(views: Sequence[SequenceView], room: Room, served: Mapping[str, int]) -> StepPlan:
    """Decide one step. `served`: tokens of each flow so far. Work inside always gives a plan that does something."""
    drawing = sorted(
        (view for view in views if view.is_started and view.is_drawing),
        key=lambda view: (urgency(view, room.now_s), view.id),
    )
    free = room.free_pages
    for view in drawing:
        free -= room.missing_pages(view)
        if free < 0 and (relief := _relief(views, room, -free)):
            return relief
    rows = [PlannedRow(view.id, 1) for view in drawing[: min(room.rows, room.tokens)]]
    return _plan_prompts(views, room, served, rows, max(0, free))


def _plan_prompts(
    views: Sequence[SequenceView], room: Room, served: Mapping[str, int], rows: list[PlannedRow], free: int
) -> StepPlan:
    started = sum(view.is_started for view in views)
    budget = room.tokens - len(rows)
    leaders = _Leaders(room.page_size)
    is_closed = False
    order = list(in_turn([v for v in views if not (v.is_started and v.is_drawing)], served, room.now_s))
    for place, view in enumerate(order):
        if budget == 0 or len(rows) == room.rows:
            break
        if not view.is_started:
            if is_closed or (room.shares_prefixes and leaders.has_one_of(view)):
                continue
            if started >= min(room.rows, room.tokens):
                slower = _slower_prompt(views, view, room.now_s)
                if slower is not None and _would_start(views, view, room, free, slower):
                    return StepPlan(preempt=(slower.id,))
                is_closed = True
                continue
            missing = room.missing_pages(view)
            if missing > free:
                # Nobody overtakes a prompt that waits for pages, or a long one might wait for ever.
                if relief := _relief_to_start(views, view, room, missing - free, is_alone=not started):
                    return relief
                if started and (finders := _finders(views, order, place, missing - free)):
                    return StepPlan(preempt=finders)
                is_closed = started > 0
                if is_closed:
                    continue
            free -= missing
            started += 1
        tokens = min(budget, view.remaining)
        rows.append(PlannedRow(view.id, tokens))
        leaders.add(view)
        budget -= tokens
    return StepPlan(rows=tuple(rows))


def _relief(views: Sequence[SequenceView], room: Room, pages: int) -> StepPlan | None:
    """Who gives way so that `pages` more pages are free. `None`: there is nobody left to ask."""
    if room.has_idle:
        return StepPlan(drop_idle_pages=pages)
    first = next(iter(victims(views, room.now_s)), None)
    return None if first is None else StepPlan(preempt=(first.id,))


def _relief_to_start(
    views: Sequence[SequenceView], view: SequenceView, room: Room, pages: int, *, is_alone: bool
) -> StepPlan | None:
    """Who gives way so that `view` may start. `is_alone`: nothing has started, so that nothing comes by waiting."""
    if is_alone:
        return _relief(views, room, pages)
    if _is_ahead(view, room.now_s):
        return None
    if room.has_idle:
        return StepPlan(drop_idle_pages=pages)
    fills = [other for other in views if other.is_started and _is_ahead(other, room.now_s)]
    last = max(fills, key=lambda other: (urgency(other, room.now_s), other.id), default=None)
    return None if last is None else StepPlan(preempt=(last.id,))


def _finders(views: Sequence[SequenceView], order: Sequence[SequenceView], place: int, pages: int) -> tuple[int, ...]:
    """Who waits behind the prompt at `place`, and holds so many pages that nobody else does: found in the cache, where
    they find what is left when their turn comes. The last in turn first; none where that does not do."""
    behind = [view for view in order[place + 1 :] if view.pages and not view.is_started]
    if not 0 < len(behind) <= FINDERS:
        return ()
    waiting = {view.id for view in behind}
    held = {page for view in views if view.id not in waiting for page in view.pages}
    holders = Counter(page for view in behind for page in view.pages)
    chosen: list[int] = []
    for view in reversed(behind):
        chosen.append(view.id)
        for page in view.pages:
            holders[page] -= 1
            pages -= holders[page] == 0 and page not in held
        if pages <= 0:
            return tuple(chosen)
    return ()


def _would_start(
    views: Sequence[SequenceView], view: SequenceView, room: Room, free: int, slower: SequenceView
) -> bool:
    """Whether there are pages for `view` as well, once `slower` has given up its row: its own, and those of work ahead,
    which gives way to any prompt that is not."""
    giving = {slower.id: slower}
    if not _is_ahead(view, room.now_s):
        giving |= {one.id: one for one in views if one.is_started and _is_ahead(one, room.now_s)}
    come_free = sum(len(one.pages) for one in giving.values())
    return room.has_idle or room.missing_pages(view) <= free + come_free


class _Leaders:
    """Prompts that have a row in this step, found by the page that each is inside now, and by what stands there: so who
    waits for one of them is known without asking every row."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._inside: dict[tuple[str, int], list[SequenceView]] = {}
        """By namespace and by which page of the text it is."""
        self._ends: dict[tuple[str, int], tuple[set[_PageText], int]] = {}
        """By namespace and end: what those who compute that far have there, and of how many of them it is known."""

    def add(self, view: SequenceView) -> None:
        self._inside.setdefault((view.namespace, view.computed // self._page_size), []).append(view)

    def has_one_of(self, follower: SequenceView) -> bool:
        """Whether one is inside the page that `follower` would have to compute next, or end its text with."""
        size, known = self._page_size, follower.computed // self._page_size
        end = min((known + 1) * size, len(follower.tokens))
        inside = self._inside.get((follower.namespace, known), [])
        # for less than half a page it does not wait a step
        if not inside or follower.is_read or 2 * (end - follower.computed) < size:
            return False
        texts, asked = self._ends.get((follower.namespace, end), (set(), 0))
        texts |= {self._text(row, known, end) for row in inside[asked:] if row.computed < end <= len(row.tokens)}
        self._ends[follower.namespace, end] = texts, len(inside)
        return self._text(follower, known, end) in texts

    def _text(self, view: SequenceView, known: int, end: int) -> _PageText:
        return view.pages[known - 1] if known else None, tuple(view.tokens[known * self._page_size : end])


_PageText = tuple[int | None, tuple[int, ...]]
"""The page before, and the tokens behind it. The same page means the same text up to there."""


def _slower_prompt(views: Sequence[SequenceView], view: SequenceView, now_s: float) -> SequenceView | None:
    """The least urgent prompt being computed, if it is of a less urgent class than `view`.

    Only prompts: what they computed stays as cache, and all but a text that is read, which begins anew, go on from
    there. Both age alike, so they never change places twice.
    """
    prompts = [other for other in views if other.is_started and not other.is_drawing]
    slowest = max(prompts, key=lambda other: (urgency(other, now_s), other.id), default=None)
    return slowest if slowest is not None and urgency(slowest, now_s) > urgency(view, now_s) else None
