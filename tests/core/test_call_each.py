from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from parrot_compat.core.call import Sampling
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import BadTemplate, CallerError
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.function_calls import FunctionCall
from parrot_compat.core.manager import Manager
from parrot_compat.core.prompt import Constant, Input
from parrot_compat.core.template import Template

SHOUT = Template.parse("shout {{input:word}} {{output:shouted}} and then {{output:after}}")


def manager() -> Manager:
    engine = ScriptedEngine(lambda prompt: prompt.upper())
    fleet = Fleet()
    fleet.add(engine, engine.tokenizer)
    return Manager(fleet)


async def test_a_function_over_many_bindings_answers_each_and_is_one_stage() -> None:
    async with manager() as running:
        session = running.open_session()
        many = await session.call_each(SHOUT, [{"word": Constant(word)} for word in ("a", "b", "c")], function="shout")
        for output in SHOUT.outputs:
            (group,) = {made[output].objective.group for made in many}
            assert group is not None
        texts = [await made["shouted"].output.get() for made in many]
        assert [("SHOUT A" in text, "SHOUT B" in text, "SHOUT C" in text) for text in texts] == [
            (True, False, False),
            (False, True, False),
            (False, False, True),
        ]
        assert len({task.call.id for made in many for task in made.values()}) == 6
        running.check()


async def test_of_many_bindings_all_are_accepted_or_none() -> None:
    async with manager() as running:
        session = running.open_session()
        with pytest.raises(BadTemplate, match="word"):
            await session.call_each(SHOUT, [{"word": Constant("a")}, {}])
        with pytest.raises(CallerError, match="nobody"):
            await session.call_each(SHOUT, [{"word": Constant("a")}, {"word": Input("nobody")}])
        with pytest.raises(CallerError, match="louder"):
            await session.call_each(SHOUT, [{"word": Constant("a")}], outputs={"louder": Sampling()})
        assert session.tasks() == () and running.open_calls == 0


class Walked(tuple[Any, ...]):
    """Segments that count how often somebody has begun to look through all of them."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_however_many_bindings_there_are_the_template_is_looked_through_as_often_as_for_one() -> None:
    walks = []
    for bindings in (1, 500):
        segments = Walked(Template.parse("{{input:word}}{{output:y}}" + "{{input:word}}" * 1000).segments)
        called = FunctionCall(template=Template(segments))
        calls = called.over([{"word": Constant("a")}] * bindings, [f"call-{n}" for n in range(bindings)])
        assert len(calls) == bindings and len({call.id for call in calls}) == bindings
        walks.append(segments.walks)
    assert walks[0] == walks[1]


async def test_a_session_looks_through_the_template_as_often_for_many_bindings_as_for_one() -> None:
    async with manager() as running:
        walks = []
        for bindings in (1, 50):
            segments = Walked(SHOUT.segments)
            many = [{"word": Constant("a")}] * bindings
            assert len(await running.open_session().call_each(Template(segments), many)) == bindings
            walks.append(segments.walks)
        assert walks[0] == walks[1]
