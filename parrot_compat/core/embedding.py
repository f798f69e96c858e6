"""Embeddings: texts in, vectors out, over all engines of a model.

An embedding has no session, no variable and no place in a graph: it is answered or it fails, and nothing is kept of it.
It knows nothing of HTTP.

The invariant: every input is charged to its tenant as one open call until the answer is there; an engine that is lost
with inputs inside is asked of no more, and its inputs go once to another.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Coroutine, Sequence
from dataclasses import replace

from .admission import Admission
from .engine import Embed, Embedded, Pooling, Scope
from .errors import EngineLost, ModelAway, NoEngineForModel
from .events import InputsEmbedded
from .fleet import Fleet, Member
from .placement import Candidate, EngineView, place
from .prompt import Content, Tokens
from .rendering import Rendered, Renderer, about_tokens

__all__ = ["Embedder"]

Answer = Embedded | EngineLost

_ATTEMPTS = 2  # a text that kills engines must not be carried from one to the next
_RENDERED_AT_ONCE = 32
"""Inputs that are made without a look at what else is to be done."""


class Embedder:
    def __init__(self, fleet: Fleet, renderer: Renderer, admission: Admission) -> None:
        self._fleet = fleet
        self._renderer = renderer
        self._admission = admission
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
            parts = [self._ask(member, [rendered[n] for n in numbers], wanted) for member, numbers in shares]
            answers = await _all_or_none(parts)
            for (member, numbers), answer in zip(shares, answers, strict=True):
                if isinstance(answer, Embedded):
                    tokens += answer.prompt_tokens
                    vectors.update(zip(numbers, answer.vectors, strict=True))
                else:
                    loss = answer
                    self._fleet.lost(member, loss)
            if len(vectors) == len(rendered):
                break
        else:
            raise loss or NoEngineForModel(f"the engine of model {model!r} that had room for it is gone")
        return Embedded(vectors=tuple(vectors[n] for n in range(len(rendered))), prompt_tokens=tokens)

    def _shares(
        self, model: str, rendered: dict[int, Rendered], loss: EngineLost | None
    ) -> list[tuple[Member, list[int]]]:
        members = self._fleet.serving(model)
        if not members and loss is None and self._fleet.expects(model):
            raise self._fleet.away(model) or ModelAway(f"model {model!r} has no engine: it is being started again")
        if not members:
            raise loss or NoEngineForModel(f"no engine that serves model {model!r} is up")
        tasks = [Candidate(key=n, prompt_tokens=one.prompt_tokens, output_tokens=0) for n, one in rendered.items()]
        # No row is kept free for it: it waits in the engine, beside the prompts there.
        views = [replace(view, max_rows=None, context_tokens=_fitting(view)) for view in map(Member.view, members)]
        shares: dict[str, list[int]] = {}
        for assignment in place(tasks, views):
            assert isinstance(assignment.key, int)
            shares.setdefault(assignment.engine, []).append(assignment.key)
        return [(self._fleet.member(engine), numbers) for engine, numbers in shares.items()]

    @staticmethod
    async def _ask(member: Member, rendered: Sequence[Rendered], wanted: Embed) -> Answer:
        takes_text = member.info.takes == "text"
        inputs = tuple(
            one.content if takes_text or one.ids is None else Tokens(one.ids)  # ids are given to engines as they are
            for one in rendered
        )
        try:
            return await member.engine.embed(replace(wanted, inputs=inputs))
        except EngineLost as loss:
            return loss


def _fitting(view: EngineView) -> int | None:
    """Placement leaves room for a token of answer; here the whole context may be taken."""
    return None if view.context_tokens is None else view.context_tokens + 1


async def _all_or_none(parts: Sequence[Coroutine[None, None, Answer]]) -> list[Answer]:
    """The answers of all; where one raises, the others are stopped before the error goes on."""
    asked = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
