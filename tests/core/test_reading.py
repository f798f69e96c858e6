"""Reasoning and calls of tools are told from the answer, however the text is cut; a variable holds the answer alone."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.call import Call, CallId, Finish, Reading, Usage, VariableName
from parrot_compat.core.engine import Chunk, Generate
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.output_format import ReasoningStyle
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, TextPrompt
from parrot_compat.core.reading import Reader
from parrot_compat.core.tool_calls import CallPiece, whole_calls

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
CASES: list[tuple[Reading, str, str, str, int]] = [
    # reading, text, reasoning, answer, calls
    (Reading(reasoning="think"), "<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes.", 0),
    (Reading(reasoning="think"), "<think>\n\n</think>\n\nYes.", "", "Yes.", 0),
    (Reading(reasoning="think"), " Yes, <think>no</think>.", "", " Yes, <think>no</think>.", 0),
    (Reading(reasoning="think"), "<thin ice", "", "<thin ice", 0),
    (Reading(reasoning="think"), "<think>a < b </thin", "a < b </thin", "", 0),
    (Reading(reasoning="think_open"), "Hm.\nSo.\n</think>\nYes. ", "Hm.\nSo.", "Yes. ", 0),
    (Reading(reasoning="think_open"), "<think>\nHm.</think>Yes.", "Hm.", "Yes.", 0),
    (Reading(reasoning="think_open"), "Never closed", "Never closed", "", 0),
    (Reading(reasoning="none"), "<think>a</think>b", "", "<think>a</think>b", 0),
    (Reading(), "<think>a</think>b", "", "<think>a</think>b", 0),
    (Reading(reasoning="mistral"), "[THINK]Hm. [1]\n[/THINK] Yes.", "Hm. [1]", "Yes.", 0),
    (Reading(reasoning="mistral"), "<think>a</think>b", "", "<think>a</think>b", 0),
    (
        Reading(tools="mistral_args", reasoning="mistral"),
        "[THINK]Add?[/THINK]I add.[TOOL_CALLS]add[ARGS]{}[TOOL_CALLS]now[ARGS]{}",
        "Add?",
        "I add.",
        2,
    ),
    (Reading(tools="hermes"), f"I add.\n{ADD}", "", "I add.", 1),
    (Reading(tools="hermes", reasoning="think"), f"<think>\n{ADD}\n</think>\n{ADD}\n{ADD}", ADD, "", 2),
    (Reading(tools="hermes", reasoning="think_open"), f"Add?</think>\n\nI add. {ADD}", "Add?", "I add.", 1),
    (Reading(tools="hermes", is_parallel=False), f"I add. {ADD}\n{ADD}\nDone.", "", "I add.", 1),
]


def read(reading: Reading, pieces: list[str]) -> list[Chunk]:
    reader = Reader(reading)
    last = Chunk(finish=Finish.STOP, usage=Usage())
    return [reader.read(chunk) for chunk in [*(Chunk(text=piece) for piece in pieces), last]]


@pytest.mark.parametrize("case", CASES)
def test_reasoning_and_calls_are_told_from_the_answer(case: tuple[Reading, str, str, str, int]) -> None:
    check(case, [case[1]])


@given(case=st.sampled_from(CASES), cuts=st.lists(st.integers(0, 160), max_size=20))
def test_how_a_text_is_cut_changes_nothing(case: tuple[Reading, str, str, str, int], cuts: list[int]) -> None:
    text = case[1]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    check(case, [text[start:end] for start, end in itertools.pairwise(places)])


def check(case: tuple[Reading, str, str, str, int], pieces: list[str]) -> None:
    reading, _, reasoning, answer, calls = case
    chunks = read(reading, pieces)
    assert "".join(chunk.reasoning for chunk in chunks) == reasoning
    assert "".join(chunk.text for chunk in chunks) == answer
    assert len(whole_calls(piece for chunk in chunks for piece in chunk.calls)) == calls
    assert chunks[-1].finish is (Finish.TOOL_CALLS if calls else Finish.STOP)


def test_what_an_engine_has_told_apart_passes_through() -> None:
    told = Chunk(text="Yes.", reasoning="Hm.", finish=Finish.STOP, usage=Usage())
    assert Reader(Reading(tools="hermes", reasoning="think")).read(told) == told


class Thinking(CharTokenizer):
    """Of a model whose chat template shows that it thinks first."""

    reasoning_style: ReasoningStyle = "think"


async def test_a_variable_holds_the_answer_and_its_reader_is_told_nothing_else() -> None:
    said = {"Question": f"<think>\nEasy.\n</think>\n\nForty-two. {ADD}", "Echo": "ok"}
    engine = ScriptedEngine(said)
    fleet = Fleet()
    fleet.add(engine, Thinking())
    async with Manager(fleet) as manager:
        session = manager.open_session()
        first = Call(
            id=CallId("first"),
            prompt=ChatPrompt((Message.of("user", "Question"),)),
            output=VariableName("answer"),
            reading=Reading(tools="hermes"),
        )
        echo = ChatPrompt((Message("user", (Constant("Echo "), Input("answer"))),))
        second = Call(id=CallId("second"), prompt=echo, output=VariableName("echo"))
        raw = Call(id=CallId("raw"), prompt=TextPrompt((Constant("Question"),)), output=VariableName("raw"))
        asked, echoed, unread = await session.submit_all((first, second, raw))
        with echoed.followed():
            result = await asked.finished()
            assert (result.text, result.reasoning, result.finish) == ("Forty-two.", "Easy.", Finish.TOOL_CALLS)
            assert [(call.name, call.arguments) for call in result.calls] == [("add", '{"a": 1}')]
            assert await session.read("answer") == "Forty-two."
            await echoed.finished()
            assert echoed.rendered is not None and echoed.rendered.ids is not None
            assert "".join(map(chr, filter(lambda id: id < 0x110000, echoed.rendered.ids))).startswith(
                "user\nEcho Forty-two.assistant"
            )
        # a raw text is no chat: what the model writes is the answer
        assert (await unread.finished()).text == said["Question"]


async def test_where_one_call_is_wanted_the_engine_stops_behind_it() -> None:
    engine = ScriptedEngine({"": f"I add. {ADD}\n{ADD}\n" + "And so on. " * 50})
    fleet = Fleet()
    fleet.add(engine, engine.tokenizer)
    async with Manager(fleet) as manager:
        session = manager.open_session()
        prompt = ChatPrompt((Message.of("user", "Add."),))
        one, many = await session.submit_all(
            [
                Call(
                    id=CallId(name),
                    prompt=prompt,
                    output=VariableName(name),
                    reading=Reading(tools="hermes", is_parallel=name == "many"),
                )
                for name in ("one", "many")
            ]
        )
        single, several = await one.finished(), await many.finished()
        assert (single.text, single.finish, len(single.calls)) == ("I add.", Finish.TOOL_CALLS, 1)
        assert len(several.calls) == 2 and several.text.endswith("And so on.")
        assert single.usage.output_tokens == len(single.tokens) < len(f"I add. {ADD}\n{ADD}")
        assert single.usage.prompt_tokens == several.usage.prompt_tokens > 0
        await session.close()
        manager.check()
        engine.check()
        assert engine.load().running == 0


async def test_a_call_that_the_limit_cuts_off_is_told_as_far_as_it_came() -> None:
    reader = Reader(Reading(tools="hermes"))
    told = [reader.read(Chunk(text=ADD[: ADD.index("1")])), reader.read(Chunk(finish=Finish.LENGTH, usage=Usage()))]
    assert [(call.name, call.arguments) for call in whole_calls(piece for one in told for piece in one.calls)] == [
        ("add", '{"a": ')
    ]
    assert told[-1].finish is Finish.LENGTH


@pytest.mark.parametrize(
    ("begun", "finish"),
    [
        ("<tool_c", Finish.LENGTH),
        ("<tool_call>", Finish.LENGTH),
        ('<tool_call>\n{"name": "g"', Finish.LENGTH),
        (ADD, Finish.TOOL_CALLS),
        ("Done.", Finish.TOOL_CALLS),
    ],
)
def test_a_limit_amid_what_becomes_a_second_call_is_told_as_one(begun: str, finish: Finish) -> None:
    reader = Reader(Reading(tools="hermes"))
    told = [reader.read(Chunk(text=character)) for character in f"{ADD}\n{begun}"]
    told.append(reader.read(Chunk(finish=Finish.LENGTH, usage=Usage())))
    assert told[-1].finish is finish
    calls = whole_calls(piece for one in told for piece in one.calls)
    assert len(calls) == (2 if begun == ADD else 1)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        (ADD[: ADD.index("1")], Finish.STOP),
        (f"{ADD}\n{ADD[: ADD.index('1')]}", Finish.STOP),
        (f"{ADD}\n<tool_call>", Finish.STOP),
        (ADD, Finish.TOOL_CALLS),
        (ADD.removesuffix("\n</tool_call>"), Finish.TOOL_CALLS),
        (f"{ADD}\nDone.", Finish.TOOL_CALLS),
    ],
)
def test_a_stop_string_within_a_call_is_what_has_ended_the_answer(text: str, finish: Finish) -> None:
    reader = Reader(Reading(tools="hermes"))
    for character in text:
        reader.read(Chunk(text=character))
    last = reader.read(Chunk(finish=Finish.STOP, usage=Usage(), stop="b"))
    assert (last.finish, last.stop) == (finish, "b")


def test_calls_that_an_engine_has_told_apart_are_no_more_than_were_wanted() -> None:
    pieces = (CallPiece(index=0, id="a", name="add"), CallPiece(index=1, id="b", name="now"))
    for is_parallel, expected in ((True, 2), (False, 1)):
        chunk = Reader(Reading(tools="hermes", is_parallel=is_parallel)).read(Chunk(calls=pieces))
        assert len(chunk.calls) == expected


def test_where_an_engine_tells_calls_apart_by_itself_what_looks_like_one_is_text() -> None:
    reader = Reader(Reading(tools="hermes"))
    told = [
        reader.read(chunk)
        for chunk in (
            Chunk(text=ADD[:20]),
            Chunk(calls=(CallPiece(index=0, id="a", name="now", arguments="{}"),)),
            Chunk(text=ADD),
            Chunk(finish=Finish.TOOL_CALLS, usage=Usage()),
        )
    ]
    assert "".join(chunk.text for chunk in told) == ADD[:20] + ADD
    assert [call.name for call in whole_calls(piece for chunk in told for piece in chunk.calls)] == ["now"]
    assert told[-1].finish is Finish.TOOL_CALLS


@pytest.mark.parametrize(
    ("style", "text", "counted"),
    [
        ("think", "<think>Hm.</think>Yes.", len("<think>Hm.</think>")),
        ("think", "Yes, <think>no</think>.", 0),
        ("think_open", "Hm.</think>Yes.", len("Hm.</think>")),
        ("think_open", "Never closed", len("Never closed")),
        ("none", "<think>a</think>b", None),
    ],
)
def test_the_tokens_of_reasoning_are_counted_with_its_marks(
    style: ReasoningStyle, text: str, counted: int | None
) -> None:
    reader = Reader(Reading(reasoning=style))
    for character in text:
        reader.read(Chunk(text=character, tokens=(1,)))
    usage = reader.read(Chunk(finish=Finish.STOP, usage=Usage(output_tokens=len(text)))).usage
    assert usage == Usage(output_tokens=len(text), reasoning_tokens=counted)


async def test_an_engine_is_told_which_control_tokens_the_reading_goes_by() -> None:
    asked: list[tuple[str, ...]] = []

    class Asked(ScriptedEngine):
        def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
            asked.append(generate.marks)
            return super().generate(generate)

    engine = Asked({"": "Yes."})
    fleet = Fleet()
    fleet.add(engine, Thinking())
    async with Manager(fleet) as manager:
        session = manager.open_session()
        for number, reading in enumerate((Reading(tools="mistral_args"), Reading(reasoning="none"))):
            prompt = ChatPrompt((Message.of("user", "Well?"),))
            call = Call(id=CallId(str(number)), prompt=prompt, output=VariableName(f"out-{number}"), reading=reading)
            await (await session.submit(call)).finished()
    assert asked == [("<think>", "</think>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"), ()]
