"""Editing: a text comes back with one named change; nearly all of it is copied."""

from __future__ import annotations

import re

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source


def edit(source: Source, characters: int) -> Example:
    make = source.rng.choice((replace, replace, rename, rename, drop, add, set_value, misspelt, comment))
    return make(source, characters)


def _asked(source: Source, text: str, change: str, answer: str) -> Example:
    rng = source.rng
    more = rng.choice(("", "", " Change nothing else.", " Answer with the new text only."))
    shown = rng.choice(
        (
            f"{change}{more}\n\n{text}", f"{text}\n\n{change}{more}", f"Edit this text. {change}{more}\n\n{text}",
            f"Text:\n{text}\n\nTask: {change}{more}", f"{change}{more}\n<text>\n{text}\n</text>",
            f"File:\n{text}\n\nReview:\n{change}\n\nRewrite the file.",
        )
    )  # fmt: skip
    return asked("edit", shown, answer, baseline=text)


def _text(source: Source, characters: int) -> str:
    if source.rng.random() < 0.4:
        return source.function(max(200, characters))
    return source.passage(max(120, characters))


def replace(source: Source, characters: int) -> Example:
    """One word by another, everywhere."""
    rng, text = source.rng, _text(source, characters)
    old = rng.choice(sorted(set(re.findall(r"\b[A-Za-z]{3,}\b", text))) or ["the"])
    new = words.word(rng) if old[0].islower() else words.word(rng).capitalize()
    quoted = rng.choice(("{!r}", "{}", "`{}`", '"{}"'))
    change = rng.choice(("Replace {} with {}.", "Replace every {} by {}.", "Change {} to {}.", "Write {1} for {0}."))
    change = change.format(quoted.format(old), quoted.format(new))
    return _asked(source, text, change, re.sub(rf"\b{old}\b", new, text))


def rename(source: Source, characters: int) -> Example:
    """A function or a variable."""
    rng, text = source.rng, source.function(max(200, characters))
    names = sorted(set(re.findall(r"\b[a-z_][a-z_0-9]{2,}\b", text)) - {"def", "self", "return"})
    defined = re.match(r"def (\w+)", text)
    is_function = defined is not None and rng.random() < 0.6
    old = defined[1] if defined is not None and is_function else rng.choice(names or ["def"])
    new = words.identifier(rng).lower()
    kind = rng.choice(("the function ", "")) if is_function else rng.choice(("", "the variable ", "the name "))
    change = rng.choice(("Rename {}{} to {}.", "{}{} should be called {}.", "Rename {}`{}` to `{}`.")).format(
        kind, old, new
    )
    return _asked(source, text, change[0].upper() + change[1:], re.sub(rf"\b{re.escape(old)}\b", new, text))


def drop(source: Source, characters: int) -> Example:
    """One sentence or line goes."""
    rng = source.rng
    parts = source.sentences(3, max(300, characters))
    place = rng.randrange(len(parts))
    first = " ".join(parts[place].split()[:3])
    if sum(part.startswith(first) for part in parts) > 1 or rng.random() < 0.4:
        place = rng.choice((0, len(parts) - 1))
        change = f"{rng.choice(('Delete', 'Remove'))} the {'last' if place else 'first'} sentence."
    else:
        change = f"{rng.choice(('Delete', 'Remove'))} the sentence that begins with {first!r}."
    return _asked(source, " ".join(parts), change, " ".join(parts[:place] + parts[place + 1 :]))


def add(source: Source, characters: int) -> Example:
    """A line more, before or after."""
    rng, text = source.rng, _text(source, characters)
    new = source.sentence() if rng.random() < 0.5 else f"# {words.phrase(rng)}"
    where = rng.choice(("beginning", "end"))
    change = rng.choice(("Add this line at the {}: {}", "Put the line {1!r} at the {0}.", "At the {}, add: {}"))
    return _asked(
        source, text, change.format(where, new), f"{new}\n{text}" if where == "beginning" else f"{text}\n{new}"
    )


def set_value(source: Source, characters: int) -> Example:
    """A setting gets another value."""
    rng = source.rng
    glue = rng.choice((" = ", ": ", "="))
    keys = list(dict.fromkeys(words.identifier(rng) for _ in range(rng.randrange(3, 12))))
    makers = (words.number, words.word, words.decimal, words.date, words.city, words.code)
    settings = {key: str(rng.choice(makers)(rng)) for key in keys}
    key, new = rng.choice(keys), str(rng.choice(makers)(rng))
    change = rng.choice(("Set {} to {}.", "{} should be {}.", "Change the value of {} to {}.")).format(key, new)
    before, after = (
        "\n".join(f"{name}{glue}{value}" for name, value in some.items()) for some in (settings, settings | {key: new})
    )
    return _asked(source, before, change, after)


def misspelt(source: Source, characters: int) -> Example:
    """A misspelt word is put right."""
    rng, text = source.rng, _text(source, characters)
    right = rng.choice(sorted(set(re.findall(r"\b[a-z]{5,}\b", text))) or ["the"])
    at = rng.randrange(1, len(right) - 1)
    wrong = right[:at] + right[at + 1] + right[at] + right[at + 2 :] if rng.random() < 0.6 else right[:at] + right[at:]
    wrong = wrong if wrong != right else right[:at] + right[at] + right[at:]
    change = rng.choice(("The word {!r} is misspelt: write {!r}.", "Fix the typo: {} should be {}."))
    return _asked(source, re.sub(rf"\b{right}\b", wrong, text), change.format(wrong, right), text)


def comment(source: Source, characters: int) -> Example:
    """A comment or docstring for a function."""
    rng, text = source.rng, source.function(max(200, characters))
    said = words.phrase(rng)
    change = rng.choice(("Put the comment '# {}' above the function.", "Add the comment # {} before it."))
    return _asked(source, text, change.format(said), f"# {said}\n{text}")
