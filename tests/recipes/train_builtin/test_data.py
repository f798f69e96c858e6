"""The examples that builtin:tiny is trained on: right answers, the prompts of the real template, nothing held out."""

from __future__ import annotations

import itertools
import json
import random
import re

import numpy as np
import pytest
from tokenizers import Tokenizer

from parrot_compat.core.prompt import Chat
from parrot_compat.core.tool_calls import ToolReader
from parrot_compat.gpu.models.builtin import checkpoint
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from recipes.train_builtin import corpus, mixture, packing
from recipes.train_builtin.corpus import Document
from recipes.train_builtin.evaluate import called, wire
from recipes.train_builtin.example import Example, call_text
from recipes.train_builtin.scoring import held_out
from recipes.train_builtin.source import Source, sentences_of
from recipes.train_builtin.tasks import copying, editing, extraction, reading, tools

SENTENCES = " ".join(
    f"The thing number {number} is made of {word} and lasts." for number, word in enumerate("abcdefgh")
)

WORDS = [first * 4 + second * 3 for first in "abc" for second in "abcdefghijklmnopqrstuvwxyz"]


def documents() -> list[Document]:
    """Every source says its own name in every sentence."""
    made = []
    for number in range(60):
        prose = "\n\n".join(
            f"The source{number} says that line {line} of it is about a {WORDS[line]} of its own." for line in range(60)
        )
        made.append(Document(f"package p{number}", "doc", f"All of source{number}.\n\n{prose}"))
        made.append(
            Document(f"package p{number}", "code", f"def of_source{number}(value):\n    return value + {number}")
        )
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint("tiny") / "tokenizer.json"))


def some(count: int, seed: int = 3) -> list[Example]:
    trained = [document for document in documents() if not document.is_held_out]
    return list(itertools.islice(mixture.examples(trained, seed, lambda: 0.9), count))


def test_prompts_are_what_the_chat_template_writes() -> None:
    real = HuggingFaceTokenizer(checkpoint("tiny"))
    chats = [example for example in some(300) if example.messages]
    assert any(example.tools for example in chats) and len({example.task for example in chats}) > 15
    for example in chats:
        ids = real.encode(Chat(tuple(map(wire, example.messages)), tuple(example.tools)))
        assert real.decode(ids, skip_special_tokens=False) == example.prompt()


def test_conversations_of_several_answers_are_what_the_chat_template_writes_of_them() -> None:
    real = HuggingFaceTokenizer(checkpoint("tiny"))
    talks = [example for example in some(300) if example.more]
    assert {example.task for example in talks} == {"quotes", "calls"}
    for example in talks:
        *before, (prompt, _) = example.parts()
        messages = [*example.messages]
        for (_, answer), (said, _) in zip(before, example.more, strict=True):
            messages += [{"role": "assistant", "content": answer}, *said]
        ids = real.encode(Chat(tuple(map(wire, messages)), tuple(example.tools)))
        written = "".join(f"{asked}{answer}<|im_end|>" for asked, answer in before) + prompt
        assert real.decode(ids, skip_special_tokens=False) == written


def test_a_text_that_wanders_says_what_its_source_says_two_words_at_a_time() -> None:
    source = "the cat sat on the mat, the dog sat on the cat; a mat is on the dog."
    pairs = {(first, then) for first, then in itertools.pairwise(re.findall(r"\w+|\W+", source))}
    texts = [copying.wandering(random.Random(seed), source, 200) for seed in range(20)]
    assert len(set(texts)) == 20 and all(150 < len(text) < 240 for text in texts)
    for text in texts:
        found = list(itertools.pairwise(re.findall(r"\w+|\W+", text)))
        assert sum(pair in pairs for pair in found) > 0.8 * len(found)  # behind its end it begins anew


def test_a_spliced_text_is_still_there_and_what_it_says_again_goes_on_otherwise() -> None:
    source = " ".join(f"w{number}" for number in range(60))
    for seed in range(20):
        text = copying.spliced(random.Random(seed), source)
        rest = iter(text)
        assert all(letter in rest for letter in source.strip()), "a letter is gone, or stands elsewhere"
        again = re.search(r"(?=(w\d+))\1(.)(?=.*\1(?!\2))", text, re.DOTALL)
        assert len(text) > len(source) and again is not None


def test_the_same_seed_gives_the_same_examples() -> None:
    assert some(50) == some(50) != some(50, seed=4)


def test_nothing_that_is_held_out_is_in_an_example() -> None:
    hidden = {d.source.removeprefix("package p") for d in documents() if d.is_held_out}
    assert 2 < len(hidden) < 20
    for example in some(400):
        text = example.prompt() + example.answer
        assert not [number for number in hidden if f"source{number} " in text or f"source{number}(" in text]


def test_comments_and_strings_are_read_where_a_run_asks_for_them_and_the_test_has_none(tokenizer: Tokenizer) -> None:
    said = "\n\n".join(f"A remark of number {number} that nobody says elsewhere in this text." for number in range(9))
    with_more = [*documents(), Document("package p1", "more", said), Document("package p2", "more", said)]
    trained = [document for document in with_more if not document.is_held_out]

    def remarks(more: float) -> int:
        made = itertools.islice(mixture.examples(trained, 3, lambda: 0.9, mixture.Wish(more=more)), 200)
        return sum("A remark of" in example.prompt() for example in made)

    assert remarks(0.0) == 0 < remarks(0.5)
    assert held_out(with_more, tokenizer, 1) == held_out(documents(), tokenizer, 1)


def test_comments_are_blocks_and_strings_are_prose_without_what_is_a_docstring_already() -> None:
    remark = "# Says at some length why the thing below is done as it is,\n    # which takes a second line.\n"
    literal = "This is said to somebody who reads it, and it is long enough to be worth it: {}, and so on and on."
    written = (
        f'def f():\n    """{literal.format("doc")}"""\n    {remark}    x = 1  # short\n'
        f'    return "{literal.format("text")}", "short"\n'
    )
    assert list(corpus.comments(written)) == [
        "Says at some length why the thing below is done as it is,\nwhich takes a second line."
    ]
    assert list(corpus.strings(written, with_docstrings=False)) == [literal.format("text")]
    assert set(corpus.strings(written, with_docstrings=True)) == {literal.format("text"), literal.format("doc")}


def test_the_test_is_made_of_what_is_held_out_and_the_same_every_time(tokenizer: Tokenizer) -> None:
    first, second = (held_out(documents(), tokenizer, 2) for _ in range(2))
    assert first == second
    shown = [d.source.removeprefix("package p") for d in documents() if not d.is_held_out]
    text = "".join(example.prompt() for examples in first.values() for example in examples)
    assert "source" in text and not [number for number in shown if f"source{number} " in text]
    for name in ("copy 3K", "quote 3K"):
        assert all(2300 < len(tokenizer.encode(one.prompt() + one.answer).ids) < 4000 for one in first[name])


def test_calls_of_tools_are_read_by_the_server_as_they_were_meant() -> None:
    source = Source(documents(), random.Random(1))
    for _ in range(200):
        example = tools.call(source, 100)
        reader = ToolReader("hermes")
        said = reader.push(example.answer)[0] + reader.end()[0]
        assert reader.calls and not said
        offered = {tool["function"]["name"]: tool["function"] for tool in example.tools}
        for call in reader.calls:
            given = json.loads(call.arguments)
            schema = offered[call.name].get("parameters", {})
            assert set(schema.get("required", ())) <= set(given) <= set(schema.get("properties", {}))


def test_extracted_fields_are_json_as_json_dumps_writes_it_and_stand_in_the_text() -> None:
    source = Source(documents(), random.Random(2))
    for _ in range(200):
        example = extraction.extraction(source, 100)
        values = json.loads(example.answer)
        assert json.dumps(values, ensure_ascii=False) == example.answer
        texts = [value for value in values.values() if isinstance(value, str)]
        assert all(text in example.prompt() or repr(text) in example.prompt() for text in texts)


def test_an_edit_changes_something_and_keeps_the_rest() -> None:
    source = Source(documents(), random.Random(3))
    for _ in range(100):
        example = editing.edit(source, 200)
        assert example.baseline is not None and example.baseline in example.prompt()
    renamed = editing.rename(source, 200)
    assert renamed.baseline is not None and renamed.baseline.count("\n") == renamed.answer.count("\n")


def test_a_question_is_answered_by_the_one_sentence_that_has_the_word() -> None:
    source = Source(documents(), random.Random(4))
    answers = [reading.question(source, 500) for _ in range(100)]
    assert {example.facts["unknown"] for example in answers} == {True, False}
    for example in answers:
        assert (example.answer == reading.UNKNOWN) is example.facts["unknown"]
        assert example.facts["unknown"] or example.answer in example.prompt()


def test_sentences_are_whole_and_on_one_line() -> None:
    wrapped = "One line that is\nbroken in two. Another one here,\nlong enough.\n\n* an item\n\nNo end"
    assert sentences_of(wrapped) == ["One line that is broken in two.", "Another one here, long enough."]
    assert len(sentences_of(SENTENCES)) == 8


def test_every_answer_of_a_conversation_counts_and_its_prompts_as_much_as_is_said(tokenizer: Tokenizer) -> None:
    talks = [example for example in some(300) if example.more]
    for example, (ids, weights) in zip(talks, packing.rows(tokenizer, iter(itertools.cycle(talks)), 0), strict=False):
        counted = [id for id, weight in zip(ids, weights, strict=True) if weight]
        answers = ([*tokenizer.encode(answer).ids, packing.END] for _, answer in example.parts())
        assert counted == [*itertools.chain.from_iterable(answers)]


def test_segments_have_one_size_and_count_every_token_of_the_answers(tokenizer: Tokenizer) -> None:
    rows = packing.rows(tokenizer, iter(itertools.cycle(some(400))))
    for segment in itertools.islice(packing.segments(rows, np.random.default_rng(0)), 6):
        ids = segment.ids.reshape(-1, segment.width)
        assert segment.ids.size == packing.SEGMENT and len(segment.places) == packing.COUNTED
        ends = {int(place) for place, weight in zip(segment.places, segment.weights, strict=True) if weight > 6}
        for row in range(len(ids)):
            tokens = ids[row][ids[row] != packing.PAD]
            assert tokens[-1] == packing.END
            assert row * segment.width + len(tokens) - 2 in ends  # that the answer ends here is foretold too


def test_a_call_whose_arguments_are_no_json_is_a_wrong_answer_and_no_error() -> None:
    assert called("look_up", '{ "city":"Malmö" }') == call_text("look_up", {"city": "Malmö"})
    assert called("look_up", '{"city": Malmö}') == 'look_up {"city": Malmö}'
