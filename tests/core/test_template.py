"""Templates: holes, escapes, several outputs, and one prompt per output."""

from __future__ import annotations

import time

import pytest

from parrot_compat.core.call import VariableName
from parrot_compat.core.errors import BadTemplate
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, TextPrompt, segments_of
from parrot_compat.core.template import MAX_HOLES, Output, Template


def v(*names: str) -> dict[str, VariableName]:
    return {name: VariableName(f"{name}-id") for name in names}


def test_holes_and_text_keep_their_order() -> None:
    template = Template.parse("Write {{input:task}}: {{output:code}}.")
    assert template.segments == (Constant("Write "), Input("task"), Constant(": "), Output("code"), Constant("."))
    assert template.inputs == ("task",)
    assert template.outputs == ("code",)


def test_an_escaped_brace_is_text() -> None:
    assert Template.parse(r"\{{input:x}} {{output:y}}").segments == (Constant("{{input:x}} "), Output("y"))


def test_single_braces_are_text() -> None:
    assert Template.parse("{a} {{output:y}}").segments[0] == Constant("{a} ")


def test_white_space_in_a_hole_is_allowed() -> None:
    assert Template.parse("{{ input : x }}{{ output:y }}").segments == (Input("x"), Output("y"))


@pytest.mark.parametrize(
    "text", ["{{x}} {{output:y}}", "{{input:}}{{output:y}}", "{{ {{output:y}}", "{{input:1x}}{{output:y}}"]
)
def test_an_unreadable_hole_is_refused_with_its_position(text: str) -> None:
    with pytest.raises(BadTemplate, match="at character 0"):
        Template.parse(text)


def test_a_template_of_very_many_holes_is_read_at_once_and_one_of_more_is_refused() -> None:
    began = time.process_time()
    assert len(Template.parse("{{input:x}}" * (MAX_HOLES - 1) + "{{output:y}}").segments) == MAX_HOLES
    for hole in ("{{input:x}}", r"\{{"):
        with pytest.raises(BadTemplate, match=rf"at character \d+: a template has at most {MAX_HOLES} holes"):
            Template.parse(hole * 1_000_000 + "{{output:y}}")
    assert time.process_time() - began < 30  # to look through all outputs at each hole takes minutes


def test_a_template_reads_before_each_output_all_that_stands_there() -> None:
    assert Template.parse("{{input:x}} and {{output:y}}").reads == 1
    assert Template.parse("{{output:x}}{{output:y}} {{input:x}}{{output:z}}").reads == 0 + 1 + 3
    deep = "".join(f"{{{{output:o{n}}}}}" for n in range(1_000))
    with pytest.raises(BadTemplate, match=f"read 499500 holes, each those before it; at most {MAX_HOLES} are read"):
        Template.parse(deep)


def test_a_template_without_output_is_refused() -> None:
    with pytest.raises(BadTemplate, match="at least one"):
        Template.parse("only {{input:x}}")


def test_an_output_is_written_once() -> None:
    with pytest.raises(BadTemplate, match="stands twice"):
        Template.parse("{{output:x}} {{output:x}}")


def test_an_output_cannot_be_read_before_it_is_written() -> None:
    with pytest.raises(BadTemplate, match="read before"):
        Template.parse("{{input:x}} {{output:x}}")


def test_each_output_reads_everything_before_it_as_turns_of_a_chat() -> None:
    template = Template.parse("A joke about {{input:topic}}. {{output:joke}} Explain {{input:joke}}: {{output:why}}")
    (first, first_prompt), (second, second_prompt) = template.cut({"topic": Constant("cats")}, v("joke", "why"))
    assert (first, second) == ("joke-id", "why-id")
    asked = Message("user", (Constant("A joke about "), Constant("cats"), Constant(". ")))
    assert first_prompt == ChatPrompt((asked,))
    explain = Message("user", (Constant(" Explain "), Input("joke-id"), Constant(": ")))
    assert second_prompt == ChatPrompt((asked, Message("assistant", (Input("joke-id"),)), explain))
    assert isinstance(first_prompt, ChatPrompt) and isinstance(second_prompt, ChatPrompt)
    assert first_prompt.messages[0] is second_prompt.messages[0], "a turn is there once"


def test_as_text_the_prompts_spell_the_template() -> None:
    template = Template.parse("Q: {{input:q}} A: {{output:a}} So: {{output:b}}")
    prompts = template.cut({"q": Input("question-id")}, v("a", "b"), "text")
    assert prompts[1][1] == TextPrompt(
        (Constant("Q: "), Input("question-id"), Constant(" A: "), Input("a-id"), Constant(" So: "))
    )


def test_a_template_may_begin_with_an_output() -> None:
    template = Template.parse("{{output:x}}{{output:y}}")
    prompts = template.cut({}, v("x", "y"))
    assert prompts[0][1] == ChatPrompt(())
    assert prompts[1][1] == ChatPrompt((Message("assistant", (Input("x-id"),)),))


def test_what_stands_behind_the_last_output_is_in_no_prompt_and_its_inputs_are_bound_all_the_same() -> None:
    template = Template.parse("{{input:a}}{{output:y}} of {{input:b}}")
    for form in ("chat", "text"):
        ((_, prompt),) = template.cut({"a": Constant("1"), "b": Constant("2")}, v("y"), form)  # type: ignore[arg-type]
        assert list(segments_of(prompt)) == [Constant("1")]
    with pytest.raises(BadTemplate, match="no binding for b"):
        template.cut({"a": Constant("1")}, v("y"))


def test_of_many_bindings_each_is_cut_as_it_is_alone() -> None:
    template = Template.parse("{{input:a}}{{output:y}}, {{input:y}}{{output:z}}")
    many = [({"a": Constant(str(n))}, v("y", "z")) for n in range(3)]
    assert list(template.cut_each(many)) == [template.cut(*one) for one in many]
    cut = template.cut_each([many[0], ({}, many[1][1])])
    assert next(cut) == template.cut(*many[0])
    with pytest.raises(BadTemplate, match="no binding for a"):
        next(cut)


@pytest.mark.parametrize(("bindings", "complaint"), [({}, "no binding for a"), ({"a": "1", "b": "2"}, "no input b")])
def test_bindings_match_the_inputs(bindings: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadTemplate, match=complaint):
        Template.parse("{{input:a}}{{output:y}}").cut({name: Constant(text) for name, text in bindings.items()}, v("y"))
