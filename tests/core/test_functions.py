"""Functions of a session: templates become tasks, one per output."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core.call import Sampling
from parrot_compat.core.errors import BadTemplate, CallerError, EngineError, TransformFailed, UpstreamFailed
from parrot_compat.core.prompt import Chat, Constant, Input, Text
from parrot_compat.core.template import Template
from parrot_compat.core.transform import Regex, Strip

from .conftest import World

CODE = Template.parse("Write {{input:task}}.\n{{output:code}}\nNow test it:\n{{output:test}}")


async def test_two_outputs_in_one_call_each_read_what_comes_before(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    tasks = await session.call(CODE, {"task": Constant("a sort")}, form="text", function="WriteCode")
    assert list(tasks) == ["code", "test"]
    code = await tasks["code"].finished()
    test = await tasks["test"].finished()
    assert code.text == "<Write a sort.\n>"
    assert test.text == f"<Write a sort.\n{code.text}\nNow test it:\n>"
    assert session.producer(tasks["code"].output.name) == tasks["code"].call.id
    assert session.consumers(tasks["code"].output.name) == (tasks["test"].call.id,)
    session.check()


async def test_as_a_chat_what_comes_before_an_output_is_a_conversation(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    tasks = await session.call(CODE, {"task": Constant("x")})
    code = (await tasks["code"].finished()).text
    await tasks["test"].finished()
    assert session.content(tasks["test"].call) == Chat(
        (
            {"role": "user", "content": "Write x.\n"},
            {"role": "assistant", "content": code},
            {"role": "user", "content": "\nNow test it:\n"},
        )
    )


@pytest.mark.parametrize("form", ["text", "chat"])
async def test_a_template_may_begin_with_an_output(world: World, form: str) -> None:
    world.engine(script=lambda prompt: f"said after {len(prompt)}")
    session = world.manager.open_session()
    template = Template.parse("{{output:idea}} because {{output:why}}")
    tasks = await session.call(template, {}, form=form)  # type: ignore[arg-type]
    idea = (await tasks["idea"].finished()).text
    assert idea.startswith("said after ")
    await tasks["why"].finished()
    if form == "text":
        assert session.content(tasks["why"].call) == Text(f"{idea} because ")


async def test_one_output_is_read_by_two_consumers(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    first = (await session.call(Template.parse("a{{output:x}}"), {}, form="text"))["x"]
    reads = Template.parse("{{input:text}}!{{output:y}}")
    bound = {"text": Input(first.output.name)}
    second, third = [(await session.call(reads, bound, form="text"))["y"] for _ in range(2)]
    assert (await second.finished()).text == (await third.finished()).text == "<<a>!>"
    assert session.consumers(first.output.name) == (second.call.id, third.call.id)


async def test_inputs_pass_through_their_transforms(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.set("page", "  price: 42 euros ")
    bound = {"n": Input("page", (Strip(), Regex(r"price: (\d+)", 1)))}
    task = (await session.call(Template.parse("{{input:n}}{{output:o}}"), bound, form="text"))["o"]
    assert (await task.finished()).text == "<42>"


async def test_a_transform_that_does_not_apply_fails_the_consumer_alone(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    source = (await session.call(Template.parse("a{{output:x}}"), {}, form="text"))["x"]
    template = Template.parse("{{input:n}}{{output:y}} and {{output:z}}")
    tasks = await session.call(template, {"n": Input(source.output.name, (Regex("nowhere"),))}, form="text")
    assert (await source.finished()).text == "<a>"
    with pytest.raises(TransformFailed, match="'nowhere' does not match"):
        await tasks["y"].finished()
    with pytest.raises(UpstreamFailed):
        await tasks["z"].finished()
    session.check()


async def test_a_transform_that_does_not_apply_to_a_known_text_is_refused_at_once(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.set("page", "no number")
    with pytest.raises(TransformFailed):
        await session.call(Template.parse("{{input:n}}{{output:o}}"), {"n": Input("page", (Regex(r"\d"),))})
    assert session.tasks() == () and world.manager.open_calls == 0


async def test_each_output_may_have_sampling_of_its_own(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    outputs = {"test": Sampling(max_tokens=3)}
    tasks = await session.call(
        CODE, {"task": Constant("x")}, form="text", outputs=outputs, sampling=Sampling(max_tokens=5)
    )
    assert (await tasks["code"].finished()).usage.output_tokens == 5
    assert (await tasks["test"].finished()).usage.output_tokens == 3


async def test_a_function_that_is_called_wrongly_is_refused(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    with pytest.raises(BadTemplate, match="no binding for task"):
        await session.call(CODE, {})
    with pytest.raises(BadTemplate, match="no input colour"):
        await session.call(CODE, {"task": Constant("x"), "colour": Constant("red")})
    with pytest.raises(CallerError, match="no output essay"):
        await session.call(CODE, {"task": Constant("x")}, outputs={"essay": Sampling()})
    assert session.tasks() == ()


async def test_one_call_may_read_the_answers_of_a_whole_stage(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    many = Template.parse("".join(f"{{{{input:x{n}}}}}" for n in range(2_000)) + "{{output:y}}")
    task = (await session.call(many, {name: Constant("a") for name in many.inputs}, form="text"))["y"]
    assert (await task.finished()).text == f"<{'a' * 2_000}>"


async def test_the_first_output_failing_fails_the_second_with_its_cause(world: World) -> None:
    engine = world.engine()
    engine.fail_next(EngineError("out of paper"))
    tasks = await world.manager.open_session().call(CODE, {"task": Constant("x")})
    with pytest.raises(UpstreamFailed) as failed:
        await tasks["test"].finished()
    assert failed.value.cause is tasks["code"].failure


async def test_prefix_hashes_are_over_texts_as_far_as_they_are_known(world: World) -> None:
    world.engine().stall()
    session = world.manager.open_session()
    session.set("same", "text")
    session.set("equal", "text")
    session.declare("unknown")
    template = Template.parse("A {{input:x}} B {{input:y}}{{output:o}}")
    hashes = []
    for x, y in (("same", "unknown"), ("equal", "unknown"), ("unknown", "same")):
        task = (await session.call(template, {"x": Input(x), "y": Input(y)}))["o"]
        hashes.append(session.prefix_hashes(task.call.id))
    assert hashes[0] == hashes[1] and len(hashes[0]) == 3
    assert hashes[0][0] == hashes[2][0] and hashes[0][1] != hashes[2][1]


async def test_lengths_are_learned_per_function_and_tenant(world: World) -> None:
    world.engine(script=lambda prompt: "x" * 40)
    session = world.manager.open_session("t")
    template = Template.parse("a{{output:x}}")
    for _ in range(3):
        await (await session.call(template, {}, function="F"))["x"].finished()
    assert (await session.call(template, {}, function="F"))["x"].expected_tokens == 40
    short = await session.call(template, {}, function="F", sampling=Sampling(max_tokens=7))
    assert short["x"].expected_tokens == 7
    assert (await session.call(template, {}, function="G"))["x"].expected_tokens == 128
    other = world.manager.open_session("other")
    assert (await other.call(template, {}, function="F"))["x"].expected_tokens == 128


async def test_each_output_of_a_function_has_a_length_of_its_own(world: World) -> None:
    world.engine(script=lambda prompt: "no" if "Grade" in prompt else "x" * 40)
    session = world.manager.open_session("t")
    template = Template.parse("Essay: {{output:essay}} Grade: {{output:grade}}")
    tasks = await session.call(template, {}, function="judge")
    await asyncio.gather(*(task.finished() for task in tasks.values()))
    again = await session.call(template, {}, function="judge")
    assert {name: task.expected_tokens for name, task in again.items()} == {"essay": 40, "grade": 2}
