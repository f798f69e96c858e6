"""Copying: a text comes back as it is, or one named part of it. The skill that all other tasks rest on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from random import Random

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source

_WHOLE = (
    "Repeat the following text exactly:\n\n{}", "Copy this text:\n\n{}", "Repeat after me:\n\n{}", "Echo:\n{}",
    "Write this text again, without any change:\n\n{}", "Say exactly this:\n\n{}", "{}\n\nRepeat the text above.",
    "{}\n\nCopy this, word for word.", "Give me back the text between the lines.\n---\n{}\n---",
    "Return the text in the tags unchanged.\n<text>\n{}\n</text>", 
    "Text:\n{}\n\nAnswer with the text and nothing else.",
    'Repeat: "{}"', "Please repeat this word for word: {}", "Quote the whole text.\n\n```\n{}\n```",
)  # fmt: skip
_ECHO = ("You repeat what the user says.", "You are an echo.", "Answer with the user's own words, unchanged.")


def text(source: Source, characters: int) -> str:
    """Something to copy."""
    rng = source.rng
    kind = rng.random()
    if kind < 0.5:
        return source.passage(characters)
    if kind < 0.62:
        return source.function(max(characters, 200))
    if kind < 0.9:
        return source.soup(max(1, characters // 7))
    return " ".join(words.word(rng) for _ in range(max(1, characters // 6)))


def repeat(source: Source, characters: int) -> Example:
    rng = source.rng
    wanted = text(source, characters)
    if rng.random() < 0.12:
        return asked("copy", wanted, wanted, system=rng.choice(_ECHO))
    question = rng.choice(_WHOLE if "\n" in wanted else _WHOLE + _WHOLE[-3:-1] * 2).format(wanted)
    system = "You are a helpful assistant." if rng.random() < 0.2 else None
    return asked("copy", question, wanted, system=system)


def drill(source: Source, characters: int) -> Example:
    """A copy in which the last words do not tell the next one: a text whose words follow one another as they do in it
    somewhere, or pieces of which are said again in it, few words in every order, pieces of the vocabulary, or one
    sentence again and again with a word or two changed. Only what stands long before says where one is."""
    rng = source.rng
    said = source.sentence().split()
    kind = rng.random()
    if kind < 0.25:
        wanted = wandering(rng, source.passage(max(600, 2 * characters)), characters)
    elif kind < 0.55:
        wanted = spliced(rng, source.passage(max(300, characters)))
    elif kind < 0.7:
        piece, between = rng.choice((words.piece, words.any_piece)), rng.choice((" ", " ", "\n", ", ", ""))
        wanted = between.join(piece(rng) for _ in range(max(4, characters // 6))).strip() or words.piece(rng)
    elif kind < 0.85:
        few = rng.sample(said, min(len(said), rng.randrange(2, 9)))
        wanted = rng.choice((" ", " ", "\n", ", ")).join(rng.choice(few) for _ in range(max(4, characters // 8)))
    else:
        lines = []
        for _ in range(max(2, characters // (8 * len(said)))):
            changed = {rng.randrange(len(said)): words.word(rng) for _ in range(rng.randrange(1, 3))}
            lines.append(" ".join(changed.get(place, word) for place, word in enumerate(said)))
        wanted = rng.choice((" ", "\n", "\n* ", "\n\n")).join(lines)
    return asked("drill", rng.choice(_WHOLE).format(wanted), wanted)


def wandering(rng: Random, text: str, characters: int) -> str:
    """A Markov chain of the text's words and what stands between them: what follows has followed the last one, or the
    last two, in the text, but most often not here."""
    units = re.findall(r"\w+|\W+", text)
    order = rng.choice((1, 2))
    after: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place in range(order, len(units)):
        after[tuple(units[place - order : place])].append(place)
    said: list[str] = []
    size = 0
    while size < characters:
        places = after.get(tuple(said[-order:]))
        unit = units[rng.choice(places) if places else rng.randrange(len(units))]
        said.append(unit)
        size += len(unit)
    return "".join(said).strip()


def spliced(rng: Random, text: str) -> str:
    """The text, with pieces of it said again elsewhere in it: behind them it goes on otherwise each time."""
    units = re.findall(r"\w+|\W+", text)
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(max(1, len(units) - 4))
        piece = units[start : start + int(3 * 8 ** rng.random())]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(units) + 1)
            units[at:at] = piece
    return "".join(units).strip()


_UNITS = ("line", "paragraph", "sentence", "item")
_PLACES = {0: "first", 1: "second", 2: "third", -1: "last", 3: "fourth"}
_OFTEN = {0: 2, 1: 4, 2: 9, 3: 9, 4: 3, 5: 2, -1: 3}
"""How often a place is drawn where a model shall learn to count: the further ones are the ones it gets wrong."""
_FURTHER = {4: "fifth", 5: "sixth"}
_ASKS = ("Quote {}.", "Repeat {} and nothing else.", "Copy {} of the text.", "What is {}?")


def quote_part(source: Source, characters: int) -> Example:
    """One line, paragraph, sentence or item, named by its place or its beginning."""
    rng = source.rng
    unit = rng.choice(_UNITS)
    parts, whole = _divided(source, unit, characters)
    ask, wanted = _part_asked(rng, unit, parts)
    question = f"{ask}\n\n{whole}" if rng.random() < 0.5 else f"{whole}\n\n{ask}"
    return asked("quote", question, wanted)


def quote_parts(source: Source, characters: int) -> Example:
    """…and then others of the same text: each place of a text that was read once gives an answer. Of half of the texts
    only how a part begins: finding it is what is hard, and this takes few tokens."""
    rng = source.rng
    unit = rng.choice((*_UNITS, *_UNITS[:3]))
    parts, whole = _many_parts(source, unit, characters)
    if rng.random() < 0.5:
        some = [_beginning_asked(rng, unit, parts) for _ in range(rng.randrange(6, 15))]
    else:
        some = [_counted(rng, unit, parts) for _ in range(rng.randrange(3, 9))]
    (ask, wanted), *more = {answer: (then, answer) for then, answer in some}.values()
    question = f"{ask}\n\n{whole}" if rng.random() < 0.5 else f"{whole}\n\n{ask}"
    turns = [([{"role": "user", "content": then}], answer) for then, answer in more]
    return asked("quotes", question, wanted, more=turns)


def _divided(source: Source, unit: str, characters: int) -> tuple[list[str], str]:
    """A text's parts of a kind, and the text."""
    rng = source.rng
    if unit == "line":
        parts = [line for line in source.passage(max(characters, 200)).splitlines() if line.strip()]
    elif unit == "paragraph":
        parts = [part.strip("\n") for part in source.passage(max(characters, 400)).split("\n\n") if part.strip()]
    elif unit == "sentence":
        parts = source.sentences(3, max(characters, 400))
    else:
        parts = [source.soup(rng.randrange(1, 5)).replace("\n", " ") for _ in range(rng.randrange(3, 9))]
    return parts, _joined(unit, parts)


def _many_parts(source: Source, unit: str, characters: int) -> tuple[list[str], str]:
    """The same, where there is something to count."""
    if source.rng.random() < 0.25:
        return _short_parts(source, unit)
    for _ in range(6):
        parts, whole = _divided(source, unit, characters)
        if len(parts) >= 4:
            return parts, whole
        characters = min(2000, characters + 300)
    return _short_parts(source, unit)


def _short_parts(source: Source, unit: str) -> tuple[list[str], str]:
    """The same of a made-up text of few words."""
    rng = source.rng
    parts = [source.soup(rng.randrange(1, 6)).replace("\n", " ") for _ in range(rng.randrange(4, 12))]
    if unit == "sentence":
        parts = [f"{part[0].upper()}{part[1:]}{rng.choice('...!?')}" for part in parts]
    elif unit == "paragraph":
        parts = [part + "".join(f"\n{source.soup(2)}" for _ in range(rng.randrange(3))) for part in parts]
    elif unit == "line":
        parts = [" " * rng.choice((0, 0, 4, 8)) + part for part in parts]
    return parts, _joined(unit, parts)


def _joined(unit: str, parts: Sequence[str]) -> str:
    if unit == "item":
        return "\n".join(f"- {part}" for part in parts)
    return {"line": "\n", "paragraph": "\n\n", "sentence": " "}[unit].join(parts)


def _part_asked(rng: Random, unit: str, parts: Sequence[str]) -> tuple[str, str]:
    """A question for one of the parts, and that part."""
    place = rng.choice([place for place in _PLACES if -1 <= place < len(parts)])
    wanted = parts[place]
    if rng.random() < 0.4 and sum(part.split()[:3] == wanted.split()[:3] for part in parts) == 1:
        named = f"the {unit} that begins with {' '.join(wanted.split()[:3])!r}"
    else:
        named = f"the {_PLACES[place]} {unit}"
    return rng.choice(_ASKS).format(named), wanted


def _counted(rng: Random, unit: str, parts: Sequence[str]) -> tuple[str, str]:
    """…of any of the parts, and most often one that must be counted to."""
    if rng.random() < 0.3:
        wanted = rng.choice(parts)
        if sum(part.split()[:3] == wanted.split()[:3] for part in parts) == 1:
            return rng.choice(_ASKS).format(f"the {unit} that begins with {' '.join(wanted.split()[:3])!r}"), wanted
    place = _place(rng, len(parts))
    return rng.choice(_ASKS).format(f"the {(_PLACES | _FURTHER)[place]} {unit}"), parts[place]


def _beginning_asked(rng: Random, unit: str, parts: Sequence[str]) -> tuple[str, str]:
    place = _place(rng, len(parts))
    ask = rng.choice(("How does {} begin?", "Quote the first words of {}.")).format(
        f"the {(_PLACES | _FURTHER)[place]} {unit}"
    )
    begins = re.match(r"\s*\S+(?: +\S+){0,2}", parts[place])
    return ask, begins[0] if begins else parts[place]


def _place(rng: Random, count: int) -> int:
    places = [place for place in _OFTEN if place < count]
    return rng.choices(places, [_OFTEN[place] for place in places])[0]


def said_before(source: Source, characters: int) -> Example:
    """In a conversation: what was said in an earlier turn."""
    rng = source.rng
    said = [source.soup(rng.randrange(2, 9)).replace("\n", " ") for _ in range(rng.randrange(2, 5))]
    messages = []
    for one in said:
        messages += [
            {"role": "user", "content": f"Remember: {one}" if rng.random() < 0.4 else one},
            {"role": "assistant", "content": rng.choice(("I will remember it.", "Noted.", "OK."))},
        ]
    wanted = rng.choice((0, len(said) - 1))
    order = "first" if wanted == 0 else "last"
    ask = rng.choice(("What did I say {}?", "Repeat my {} message.", "What was the {} thing that I told you?"))
    messages.append({"role": "user", "content": ask.format(order)})
    return Example(task="recall", messages=messages, answer=messages[2 * wanted]["content"].removeprefix("Remember: "))


def raw_repeat(source: Source, characters: int) -> Example:
    """No chat: a text, and the same text again."""
    wanted = text(source, characters)
    return Example(task="raw", text=f"{wanted}\n\n", answer=wanted, is_scored=False)


def going_on(source: Source, characters: int) -> Example:
    """No chat: a text of the library goes on."""
    passage = source.passage(max(characters, 200))
    at = source.rng.randrange(1, max(2, len(passage) // 2))
    cut = passage.find(" ", at)
    at = at if cut < 0 else cut
    return Example(task="continue", text=passage[:at], answer=passage[at:], is_scored=False)
