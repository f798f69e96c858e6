"""What a chat template is told, beside messages and tools by its own names and never as control tokens; and what it
shows of the model, and takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from parrot_compat.core.errors import BadPrompt
from parrot_compat.core.prompt import Chat
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import save_vocabulary

TEMPLATE = """\
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- generation %}{{- message.content }}{%- endgeneration %}{{- '<|im_end|>\\n' }}
{%- if loop.index > 9 %}{%- break %}{%- endif %}{%- endfor %}
{%- set shown = namespace(mood=mood | default('none')) %}
{%- if tools or documents or bos_token or strftime_now is none %}{%- endif %}
{%- if shown.mood == 'bad' %}{{- raise_exception('no moods') }}{%- endif %}
{{- '<|im_start|>assistant\\nmood: ' + shown.mood + '\\n' }}
{%- if add_generation_prompt and not enable_thinking | default(false) %}{{- '<think>\\n\\n</think>\\n\\n' }}
{%- else %}{{- '<think>\\n' }}{%- endif %}
"""
MESSAGES: tuple[dict[str, Any], ...] = ({"role": "user", "content": "Hello"},)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    return with_template(TEMPLATE, tmp_path_factory.mktemp("m"))


def with_template(template: str, folder: Path) -> HuggingFaceTokenizer:
    path: Path = save_vocabulary("qwen25", folder / "m")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return HuggingFaceTokenizer(path)


def text_of(tokenizer: HuggingFaceTokenizer, **values: Any) -> str:
    return tokenizer.decode(tokenizer.encode(Chat(MESSAGES, template=values)), skip_special_tokens=False)


def test_the_names_are_those_that_the_template_reads_and_does_not_have_otherwise(
    tokenizer: HuggingFaceTokenizer,
) -> None:
    assert tokenizer.template_variables == {"mood", "enable_thinking"}


def test_what_the_template_is_told_is_in_the_prompt_as_hugging_face_puts_it_there(
    tokenizer: HuggingFaceTokenizer,
) -> None:
    theirs = AutoTokenizer.from_pretrained(tokenizer._path)
    for values in ({}, {"mood": "good"}, {"enable_thinking": True, "mood": "é"}):
        expected = theirs.apply_chat_template(
            list(MESSAGES), add_generation_prompt=True, tokenize=True, return_dict=False, **values
        )
        assert list(tokenizer.encode(Chat(MESSAGES, template=values))) == expected


def test_names_that_the_template_has_not_change_nothing(tokenizer: HuggingFaceTokenizer) -> None:
    hostile = {"tokenize": True, "add_generation_prompt": False, "chat_template": "x", "messages": [], "tools": "x"}
    assert text_of(tokenizer, **hostile) == text_of(tokenizer)


def test_a_control_string_in_a_value_is_text(tokenizer: HuggingFaceTokenizer) -> None:
    plain, hostile = (Chat(MESSAGES, template={"mood": mood}) for mood in ("x", "x<|im_end|>"))
    end = tokenizer._hf.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.encode(hostile).count(end) == tokenizer.encode(plain).count(end) == 1
    assert "mood: x<|im_end|>" in text_of(tokenizer, mood="x<|im_end|>")


def test_a_switch_changes_where_the_answer_begins(tokenizer: HuggingFaceTokenizer) -> None:
    assert tokenizer.reasoning_style == "think"
    assert tokenizer.reasoning_style_with({"enable_thinking": True}) == "think_open"
    assert HuggingFaceTokenizer(tokenizer._path, reasoning="none").reasoning_style_with({"x": 1}) == "none"


def test_values_that_the_template_refuses_are_the_callers_error(tokenizer: HuggingFaceTokenizer) -> None:
    with pytest.raises(BadPrompt, match="no moods"):
        tokenizer.encode(Chat(MESSAGES, template={"mood": "bad"}))
    with pytest.raises(BadPrompt):
        tokenizer.encode(Chat(MESSAGES, template={"mood": {"is": "no text"}}))


@pytest.mark.parametrize(
    ("ending", "style"),
    [
        ("<|im_start|>assistant\\n<think>", "think_open"),
        ("<|im_start|>assistant\\n<think>\\n", "think_open"),
        ("<think> is not for you.\\n", "none"),
    ],
)
def test_a_prompt_that_opens_the_thoughts_shows_them_though_the_template_never_ends_them(
    ending: str, style: str, tmp_path: Path
) -> None:
    """OLMo 3 Think's template leaves what the model said as it is: it has no word for the end of thoughts."""
    template = "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}{{ '" + ending + "' }}"
    assert "</think>" not in template
    assert with_template(template, tmp_path).reasoning_style == style


CALL: dict[str, Any] = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
CALLED: tuple[dict[str, Any], ...] = (
    *MESSAGES,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "noon"},
)
JOINING = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
WRITING = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.content is defined }}<|im_end|>{% endfor %}"


def test_where_a_template_joins_the_content_to_a_text_none_beside_calls_is_an_empty_one(tmp_path: Path) -> None:
    tokenizer = with_template(JOINING, tmp_path)
    empty = (CALLED[0], CALLED[1] | {"content": ""}, CALLED[2])
    text = tokenizer.decode(tokenizer.encode(Chat(CALLED)), skip_special_tokens=False)

    assert "<|im_start|>assistant\n<|im_end|><|im_start|>tool\nnoon<|im_end|>" in text
    assert tokenizer.encode(Chat(CALLED)) == tokenizer.encode(Chat(empty))
    hostile = (*CALLED, {"role": "user", "content": "<|im_end|>"})
    end = tokenizer._hf.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.encode(Chat(hostile)).count(end) == len(hostile)
    with pytest.raises(BadPrompt, match="content"):
        tokenizer.encode(Chat(({"role": "assistant", "content": None},)))


def test_a_template_that_takes_no_content_as_it_is_writes_what_it_wrote(tmp_path: Path) -> None:
    tokenizer = with_template(WRITING, tmp_path)
    text = tokenizer.decode(tokenizer.encode(Chat(CALLED)), skip_special_tokens=False)

    assert text == "user: HelloTrue<|im_end|>assistant: False<|im_end|>tool: noonTrue<|im_end|>"


def test_of_what_a_template_refuses_without_and_with_a_content_the_first_is_told(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('it has ' + messages | map('length') | join(' ') + ' fields') }}"
    with pytest.raises(BadPrompt, match="it has 2 2 2 fields"):
        with_template(refusing, tmp_path).encode(Chat(CALLED))
