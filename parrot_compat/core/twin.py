"""Twins: whether a planned call may stand in for the app's real one, and which of many to compare with it.

It knows nothing of plans, sessions or who claims what; two calls are compared as the fleet would run them.

The invariant: twins have equal prompt ids and equal sampling parameters on one model, so that either's answer is an
answer to the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from .call import Call, Reading, ResolvedSampling, Sampling
from .engine import EngineInfo
from .fleet import Fleet
from .prompt import Chat, Content, Text, Tokens
from .rendering import Rendered, Renderer
from .task import Task

__all__ = ["Lookalikes", "RealCall", "Twins", "says_the_same"]

_END = 64
"""Tokens that are compared before all are."""
_ANY_SEED = -1  # each call without a seed draws its own: one sample is as good as another


@dataclass(frozen=True, slots=True)
class RealCall:
    """A real call as it would run by itself."""

    model: str
    rendered: Rendered
    sampling: Sampling
    reading: Reading


class Twins:
    def __init__(self, fleet: Fleet, renderer: Renderer) -> None:
        self._fleet = fleet
        self._renderer = renderer

    async def real_call(self, call: Call, content: Content, namespace: str) -> RealCall:
        """A call that says `content`, for `difference`. Errors: `NoEngineForModel`, `BadPrompt`, `PromptTooLong`."""
        model = self._fleet.model(call.model)
        rendered = await self._renderer.render_any(content, model, namespace)
        return RealCall(model, rendered, call.sampling, call.reading)

    def difference(self, planned: Task, real: RealCall) -> str | None:
        """What keeps a planned call whose prompt is rendered from being a twin; `None`: nothing."""
        assert planned.rendered is not None
        if planned.model != real.model:
            return f"the planned call runs on model {planned.model!r}"
        if not says_the_same(planned.rendered, real.rendered):
            return "the prompt differs from the planned one"
        infos = self._fleet.infos(planned.model)
        if _decided(planned.call.sampling, real, infos) != _decided(real.sampling, real, infos):
            return "the sampling parameters differ from the planned ones"
        if planned.call.reading != real.reading:
            return "the tools differ from the planned ones"
        return None


def says_the_same(planned: Rendered, real: Rendered) -> bool:
    """Equal ids; where only the engine knows them, equal contents."""
    if planned.ids is not None and real.ids is not None:
        # calls of one map begin alike, and a plan may have thousands: their ends tell most of them apart
        if len(planned.ids) != len(real.ids) or planned.blocks[-1:] != real.blocks[-1:]:
            return False
        return planned.ids[-_END:] == real.ids[-_END:] and planned.ids == real.ids
    return planned.content == real.content


def _decided(sampling: Sampling, real: RealCall, infos: Sequence[EngineInfo]) -> ResolvedSampling:
    defaults = infos[0].defaults if infos else Sampling()
    limit = max((info.context_tokens for info in infos), default=0)
    decided = sampling.resolve(defaults, room=max(1, limit - real.rendered.prompt_tokens), seed=_ANY_SEED)
    if any(info.takes == "text" for info in infos):
        return decided  # a text engine has defaults of its own: what was asked for is part of it
    return replace(decided, asked=())


class Lookalikes:
    """Tasks by what their prompts say, so that a claim is not compared with each of thousands. What they run with is
    kept for as long as this is asked."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._unrendered = dict(enumerate(tasks))
        self._by_ids: dict[Hashable, list[_Place]] = {}
        self._by_content: dict[Hashable, list[_Place]] = {}

    def of(self, real: Rendered) -> list[Task]:
        """All whose prompts say the same, and hardly any others, in the order in which they were given."""
        for number, task in tuple(self._unrendered.items()):
            if task.rendered is not None:
                del self._unrendered[number]
                self._enter(number, task, task.rendered)
        found = self._by_content.get(_look(real.content), [])
        if real.ids is not None:
            found = [place for place in found if not place.has_ids]
            found += self._by_ids.get(_look_of_ids(real.ids, real.blocks), [])
        return [place.task for place in sorted(found, key=lambda place: place.number)]

    def _enter(self, number: int, task: Task, planned: Rendered) -> None:
        place = _Place(number, task, has_ids=planned.ids is not None)
        self._by_content.setdefault(_look(planned.content), []).append(place)
        if planned.ids is not None:
            self._by_ids.setdefault(_look_of_ids(planned.ids, planned.blocks), []).append(place)


@dataclass(frozen=True, slots=True)
class _Place:
    number: int
    task: Task
    has_ids: bool


def _look(content: Content) -> Hashable:
    """The same for contents that are equal."""
    match content:
        case Text(text):
            return text
        case Tokens(ids):
            return _look_of_ids(ids, ())
        case Chat(messages, tools):
            last = messages[-1].get("content") if messages else None
            return len(messages), len(tools), last if isinstance(last, str) else None
        case _:
            assert_never(content)


def _look_of_ids(ids: tuple[int, ...], blocks: tuple[int, ...]) -> Hashable:
    return len(ids), blocks[-1:], ids[-_END:]
