"""Reading: summaries, their merging and refining, and answers that quote the given text, or say that it says nothing.

A summary is the lead: the sentence with which a text begins says what it is about. Of a docstring without its first
line it is that line, which must be guessed.
"""

from __future__ import annotations

import re

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source, lead, sentences_of

UNKNOWN = "I don't know. The text does not say it."
_SYSTEMS = (
    "You summarise technical documentation. Keep names and rules; leave out examples. Be brief.",
    "You summarise texts.", "You keep the summary of a text that is read to you part by part. Be brief.",
    "Be brief.", "You are a careful reader.", "You are a helpful assistant.",
)  # fmt: skip
_SUMMARISE = (
    "Summarise this part of a longer text in {n}:\n\n{text}", "Summarise in {n}:\n\n{text}",
    "Summarize the following text in {n}.\n\n{text}", "{text}\n\nSummarise this in {n}.",
    "Give a summary of {n}.\n\nText:\n{text}", "Summarise in a short style, in {n}: {text}",
    "The first part:\n\n{text}\n\nSummarise it in {n}.",
)  # fmt: skip
_FREE = (
    "Summarise this:\n\n{text}", "Summarise: {text}", "The first part:\n\n{text}\n\nSummarise it.",
    "Summarise in one line: {text}", "Summarise in a short style: {text}", "{text}\n\nTL;DR",
    "What is this text about?\n\n{text}", "Write a summary of the following text:\n\n{text}\n\nSummary:",
)  # fmt: skip


def _system(source: Source) -> str | None:
    return source.rng.choice(_SYSTEMS) if source.rng.random() < 0.6 else None


def summary(source: Source, characters: int) -> Example:
    rng = source.rng
    text = source.passage(max(characters, 300)) if rng.random() < 0.85 else source.sentence()
    found = sentences_of(text)
    if len(found) > 1 and rng.random() < 0.5:
        count, template = 2, rng.choice(_SUMMARISE).replace("{n}", "two sentences")
    else:
        one = rng.choice(("one sentence", "a sentence", "one line"))
        count, template = 1, rng.choice(_SUMMARISE + _FREE * 2).replace("{n}", one)
    answer = " ".join(found[:count]) or lead(text)
    return asked("summary", template.format(text=text), answer, system=_system(source), baseline=lead(text))


def first_line(source: Source, characters: int) -> Example:
    """The body of a docstring → the line that stood before it."""
    rng = source.rng
    head, _, body = rng.choice(source.docstrings).partition("\n\n")
    body, head = body.strip("\n")[: max(characters, 300)], " ".join(head.split())
    ask = rng.choice(("Write the first line of this documentation:\n\n{}", "{}\n\nGive this a title of one sentence."))
    return asked("docstring", ask.format(body), head, baseline=lead(body))


def merge(source: Source, characters: int) -> Example:
    """Summaries of the parts, in order → the first sentence of each, three at most."""
    rng = source.rng
    parts = source.sentences(2, max(characters, 500))
    parts = parts[: rng.randrange(2, 13)] if rng.random() < 0.7 else [parts[0], *(source.sentence() for _ in "ab")]
    given = [_cut_off(part, source) for part in parts]
    shown = "\n\n".join(
        f"{part} {source.sentence()}" if rng.random() < 0.3 and part.endswith(".") else part for part in given
    )
    ask = rng.choice(
        (
            "These are summaries of the parts of one text, in order. Summarise the whole text:\n\n{}",
            "Summaries of the parts of a text:\n\n{}\n\nMerge them into one summary.",
            "Combine these summaries into one:\n\n{}",
            "{}\n\nThese are notes on one text. Write its summary.",
        )
    )
    answer = " ".join(given[:3])
    return asked("merge", ask.format(shown), answer, system=_system(source), baseline=given[0])


def refine(source: Source, characters: int) -> Example:
    """The summary so far, and the next part → the summary's first sentence, and the lead of the part."""
    rng = source.rng
    part, old = source.passage(max(characters, 300)), source.sentences(2)
    so_far = [_cut_off(one, source) for one in old[: rng.randrange(1, 3)]]
    ask = rng.choice(
        (
            "The summary so far:\n\n{old}\n\nThe next part:\n\n{part}\n\nGive the new summary.",
            "Summary so far:\n{old}\n\nNext part:\n{part}\n\nUpdate the summary.",
            "{old}\n\nRefine this summary with the following text:\n\n{part}",
        )
    )
    answer = f"{so_far[0]} {lead(part)}"
    question = ask.format(old=" ".join(so_far), part=part)
    return asked("refine", question, answer, system=_system(source), baseline=lead(part))


def _cut_off(sentence: str, source: Source) -> str:
    """Sometimes an answer had reached its limit."""
    if source.rng.random() < 0.75:
        return sentence
    pieces = sentence.split(" ")
    return " ".join(pieces[: max(3, int(len(pieces) * source.rng.random()))])


_ABOUT = (
    "What does the text say about {}?", "Quote the sentence that mentions {}.", "Which sentence is about {}?",
    "What is said of {}? Quote it.", "Find the sentence with {}.", "Answer with a quotation: what about {}?",
)  # fmt: skip
_ELSE_UNKNOWN = ("", "", " If the text does not say it, say that you don't know.", " Use only the text.")


def question(source: Source, characters: int) -> Example:
    """The one sentence that has a word, or that there is none."""
    rng = source.rng
    found = source.sentences(3, max(characters, 500))
    spoken = [set(re.findall(r"[A-Za-z_]{4,}", sentence)) for sentence in found]
    place = rng.randrange(len(found))
    rare = [one for one in spoken[place] if sum(one in sentence for sentence in found) == 1]
    if rng.random() < 0.2 or not rare:
        term, answer = words.identifier(rng) if rng.random() < 0.7 else source.sentence().split()[-1], UNKNOWN
        if any(term in sentence for sentence in found):
            term = words.made_up(rng, 3)
    else:
        term, answer = rng.choice(sorted(rare)), found[place]
    ask = rng.choice(_ABOUT).format(rng.choice(("{}", "`{}`", "'{}'", '"{}"')).format(term)) + rng.choice(_ELSE_UNKNOWN)
    text = " ".join(found)
    shown = rng.choice((f"{text}\n\n{ask}", f"{ask}\n\n{text}", f"Text:\n{text}\n\nQuestion: {ask}"))
    return asked("question", shown, answer, system=_system(source), facts={"unknown": answer is UNKNOWN})


def lookup(source: Source, characters: int) -> Example:
    """Facts, one of which is asked for."""
    rng = source.rng
    makers = (words.number, words.city, words.name, words.date, words.code, words.email, words.foreign, words.title)
    field = [words.identifier(rng) if rng.random() < 0.3 else words.noun(rng) for _ in range(2)]
    things = list(dict.fromkeys(words.title(rng) for _ in range(rng.randrange(2, 9))))
    facts = {(one, thing): str(rng.choice(makers)(rng)) for one in dict.fromkeys(field) for thing in things}
    form = rng.choice(("The {0} of {1} is {2}.", "{1} has the {0} {2}.", "{0} of {1}: {2}", "{1}.{0} = {2}"))
    lines = [form.format(one, thing, value) for (one, thing), value in facts.items()]
    rng.shuffle(lines)
    (one, thing), answer = rng.choice(list(facts.items()))
    if rng.random() < 0.15:
        thing, answer = words.title(rng) + " " + words.made_up(rng, 2), UNKNOWN
    ask = rng.choice(("What is the {0} of {1}?", "Which {0} has {1}?", "Tell me the {0} of {1}.", "{0} of {1}?"))
    text, ask = rng.choice(("\n", " ")).join(lines), ask.format(one, thing)
    shown = rng.choice((f"{text}\n\n{ask}", f"{ask}\n\n{text}", f"Read this:\n{text}\n\nQuestion: {ask}"))
    return asked("lookup", shown, answer, facts={"unknown": answer is UNKNOWN})
