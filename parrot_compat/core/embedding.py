"""Embeddings: texts in, vectors out, over all engines of a model.

An embedding has no session, no variable and no place in a graph: it is answered or it fails, and nothing is kept of it.
It knows nothing of HTTP.

The invariant: every input is charged to its tenant as one open call until the answer is there; an engine that is lost
with inputs inside is asked of no more, and its inputs go once to another; one that answers each input by itself has no
more of them, of all requests together, than its window.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from weakref import WeakKeyDictionary

from .admission import Admission
from .engine import Embed, Embedded, Pooling, Scope
from .errors import EngineLost, ModelAway, NoEngineForModel
from .events import InputsEmbedded
from .fleet import Fleet, Member
from .placement import Candidate, EngineView, place
from .prompt import Content, Tokens
from .rendering import Rendered, Renderer, about_tokens
from .window import Window

__all__ = ["Embedder"]

Some = TypeVar("Some")

_ATTEMPTS = 2  # a text that kills engines must not be carried from one to the next
_RENDERED_AT_ONCE = 32
"""Inputs that are made without a look at what else is to be done."""
_WINDOW = 2
"""Times the rows of an engine: so many inputs it has at a time, so that those of the next step are there when one ends.
Each that waits beyond them would cost it time in every step."""


@dataclass(slots=True)
class _Answered:
    """What an engine made of its share of a request."""

    vectors: dict[int, array[float]] = field(default_factory=dict)
    prompt_tokens: int = 0
    loss: EngineLost | None = None

    def take(self, numbers: Sequence[int], answer: Embedded | EngineLost) -> None:
        if isinstance(answer, Embedded):
            self.vectors.update(zip(numbers, answer.vectors, strict=True))
            self.prompt_tokens += answer.prompt_tokens
        else:
            self.loss = answer


class Embedder:
    def __init__(self, fleet: Fleet, renderer: Renderer, admission: Admission) -> None:
        self._fleet = fleet
        self._renderer = renderer
        self._admission = admission
        self._windows: WeakKeyDictionary[Member, Window] = WeakKeyDictionary()
        self.open = 0
        """Inputs without their vector."""

    async def embed(
        self,
        inputs: Sequence[Content],
        asked: str | None,
        tenant: str,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
    ) -> Embedded:
        """Errors: see `Manager.embed`; then nothing of it goes on."""
        model = self._fleet.model(asked)
        prompt_tokens = sum(map(about_tokens, inputs))
        self._admission.admit(tenant, len(inputs), prompt_tokens)
        self.open += len(inputs)
        try:
            rendered = await self._rendered(inputs, model, tenant)
            scope = Scope(namespace=tenant, flow=f"{tenant}/")
            wanted = Embed(inputs=(), pooling=pooling, dimensions=dimensions, scope=scope)
            embedded = await self._spread(model, rendered, wanted)
        finally:
            self.open -= len(inputs)
            self._admission.release(tenant, len(inputs), prompt_tokens)
        self._fleet.events.emit(
            InputsEmbedded(
                at_s=self._fleet.clock.now(),
                tenant=tenant,
                model=model,
                inputs=len(inputs),
                prompt_tokens=embedded.prompt_tokens,
            )
        )
        return embedded

    def check(self) -> None:
        for window in self._windows.values():
            window.check()
            assert self.open or not (window.taken or window.tokens_to_come)

    async def _rendered(self, inputs: Sequence[Content], model: str, tenant: str) -> list[Rendered]:
        """Errors: `BadPrompt`, `PromptTooLong`."""
        rendered: list[Rendered] = []
        for content in inputs:
            rendered.append(await self._renderer.render_input(content, model, tenant))
            if len(rendered) % _RENDERED_AT_ONCE == 0:
                await asyncio.sleep(0)  # small ones are made here, and a request may have thousands
        return rendered

    async def _spread(self, model: str, rendered: Sequence[Rendered], wanted: Embed) -> Embedded:
        """Share the inputs out by load, and those of a lost engine again."""
        vectors: dict[int, array[float]] = {}
        tokens = 0
        loss: EngineLost | None = None
        for _ in range(_ATTEMPTS):
            missing = {n: one for n, one in enumerate(rendered) if n not in vectors}
            shares = self._shares(model, missing, loss)
            for share in await _all_or_none([self._share(*each, rendered, wanted) for each in shares]):
                vectors |= share.vectors
                tokens += share.prompt_tokens
                loss = share.loss or loss
            if len(vectors) == len(rendered):
                break
        else:
            raise loss or NoEngineForModel(f"the engine of model {model!r} that had room for it is gone")
        return Embedded(vectors=tuple(vectors[n] for n in range(len(rendered))), prompt_tokens=tokens)

    async def _share(
        self, member: Member, numbers: Sequence[int], rendered: Sequence[Rendered], wanted: Embed
    ) -> _Answered:
        """Some of the inputs, by one engine, until they are all answered or it is lost."""
        answered, window = _Answered(), self._window(member)
        if window is None:
            answered.take(numbers, await self._ask(member, [rendered[n] for n in numbers], wanted))
            return answered
        left = deque(numbers)

        async def in_turn() -> None:
            while left and answered.loss is None:
                n = left.popleft()
                try:
                    await window.take(wanted.scope.namespace, rendered[n].prompt_tokens)
                finally:
                    window.tokens_to_come -= rendered[n].prompt_tokens
                try:
                    if answered.loss is None:
                        answered.take((n,), await self._ask(member, [rendered[n]], wanted))
                finally:
                    window.leave()

        window.tokens_to_come += sum(rendered[n].prompt_tokens for n in numbers)
        try:
            await _all_or_none([in_turn() for _ in range(min(len(numbers), window.places))])
        finally:
            window.tokens_to_come -= sum(rendered[n].prompt_tokens for n in left)
        return answered

    def _window(self, member: Member) -> Window | None:
        """`None` for an engine that takes text: to a server a request of many inputs is one."""
        if member.info.max_rows is None or member.info.takes == "text":
            return None
        return self._windows.setdefault(member, Window(_WINDOW * member.info.max_rows))

    def _shares(
        self, model: str, rendered: dict[int, Rendered], loss: EngineLost | None
    ) -> list[tuple[Member, list[int]]]:
        members = self._fleet.serving(model)
        if not members and loss is None and self._fleet.expects(model):
            raise self._fleet.away(model) or ModelAway(f"model {model!r} has no engine: it is being started again")
        if not members:
            raise loss or NoEngineForModel(f"no engine that serves model {model!r} is up")
        tasks = [Candidate(key=n, prompt_tokens=one.prompt_tokens, output_tokens=0) for n, one in rendered.items()]
        views = list(map(self._view, members))
        shares: dict[str, list[int]] = {}
        for assignment in place(tasks, views):
            assert isinstance(assignment.key, int)
            shares.setdefault(assignment.engine, []).append(assignment.key)
        return [(self._fleet.member(engine), numbers) for engine, numbers in shares.items()]

    def _view(self, member: Member) -> EngineView:
        view, window = member.view(), self._windows.get(member)
        return replace(
            view,
            max_rows=None,  # no row is kept free for it: it waits in the engine, beside the prompts there, or for that
            waiting_tokens=view.waiting_tokens + (0 if window is None else window.tokens_to_come),
            # placement leaves room for a token of answer; here the whole context may be taken
            context_tokens=None if view.context_tokens is None else view.context_tokens + 1,
        )

    async def _ask(self, member: Member, rendered: Sequence[Rendered], wanted: Embed) -> Embedded | EngineLost:
        takes_text = member.info.takes == "text"
        inputs = tuple(
            one.content if takes_text or one.ids is None else Tokens(one.ids)  # ids are given to engines as they are
            for one in rendered
        )
        try:
            return await member.engine.embed(replace(wanted, inputs=inputs))
        except EngineLost as loss:
            self._fleet.lost(member, loss)
            return loss


async def _all_or_none(parts: Sequence[Coroutine[None, None, Some]]) -> list[Some]:
    """The answers of all; where one raises, the others are stopped before the error goes on."""
    asked = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
