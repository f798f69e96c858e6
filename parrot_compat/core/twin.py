"""Twins: whether a planned call may stand in for the app's real one.

It knows nothing of plans, sessions or who claims what; two calls are compared as the fleet would run them.

The invariant: twins have equal prompt ids and equal sampling parameters on one model, so that either's answer is an
answer to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .call import Call, Reading, ResolvedSampling, Sampling
from .engine import EngineInfo
from .fleet import Fleet
from .prompt import Content
from .rendering import Rendered, Renderer
from .task import Task

__all__ = ["RealCall", "Twins", "says_the_same"]

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
