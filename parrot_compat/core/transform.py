"""Transforms: what may be done to a variable's text between its producer and a consumer.

The list is closed and holds no code of the caller's, so that a server may run it for strangers: every
transform is linear in the length of the text (patterns run on RE2, which cannot backtrack), and what holds up
everything else while it goes on (a pattern is compiled, JSON is read) is bounded.

The invariant: a transform is a pure function of the text; where it does not apply it fails the consumer
with `TransformFailed`, it never passes an empty or untouched text on instead.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import re2

from .errors import BadTemplate, TransformFailed

__all__ = ["FirstJson", "JsonPointer", "Lines", "Regex", "Strip", "Transform", "Truncate", "parse_transforms"]

MAX_PATTERN_CHARACTERS = 1_000
MAX_PATTERNS = 64
"""Different ones of one request. One takes up to 5 ms to compile."""
MAX_POINTER_CHARACTERS = 8_192
MAX_TRANSFORMS = 16
"""Of one reference, one after another: each reads the text once more."""
MAX_JSON_TRANSFORMS = 4
"""Among those."""
MAX_JSON_CHARACTERS = 1 << 20
"""Of a text that is read as JSON: some 100 ms at most."""
MAX_SEARCH = 1 << 31
"""Characters of a text times the size of the pattern that is looked for in it: where RE2 has to go step by step, that
is what it takes, some 7 ns each."""
RE2_MEMORY_BYTES = 1 << 18
"""Of one pattern. `\\pL{9}` has room in it; what has not (`\\pL{30}`) is given up after 2 ms, and not after 1 s."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Without white space at both ends."""

    def apply(self, text: str) -> str:
        return text.strip()


@dataclass(frozen=True, slots=True)
class Truncate:
    """The first `characters` code points."""

    characters: int

    def apply(self, text: str) -> str:
        return text[: self.characters]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines first .. end-1, counted as Python slices count: negative from the end, None to the end."""

    first: int | None = None
    end: int | None = None

    def apply(self, text: str) -> str:
        return "\n".join(text.splitlines()[self.first : self.end])


@dataclass(frozen=True, slots=True)
class Regex:
    """What `group` of the pattern's first match holds (group 0: the whole match). RE2 syntax."""

    pattern: str
    group: int = 0

    def __post_init__(self) -> None:
        if len(self.pattern) > MAX_PATTERN_CHARACTERS:
            raise BadTemplate(f"regex of {len(self.pattern)} characters exceeds the limit of {MAX_PATTERN_CHARACTERS}")
        groups = self._compiled().groups
        if not 0 <= self.group <= groups:
            raise BadTemplate(f"regex {self.pattern!r} has {groups} groups; group {self.group} was asked for")

    def apply(self, text: str) -> str:
        compiled = self._compiled()
        if self.work(len(text)) > MAX_SEARCH:
            most = MAX_SEARCH // compiled.programsize
            raise TransformFailed(f"regex {self.pattern!r} searches at most {most} characters, not {len(text)}")
        match = compiled.search(text)
        found = None if match is None else match.group(self.group)
        if found is None:
            raise TransformFailed(f"regex {self.pattern!r} does not match {_shown(text)}")
        return str(found)

    def work(self, characters: int) -> int:
        """Of a search in so many characters, where RE2 has to go step by step: some 7 ns each. It lets other threads
        run meanwhile."""
        return characters * int(self._compiled().programsize)

    def _compiled(self) -> Any:
        options = re2.Options()
        options.max_mem = RE2_MEMORY_BYTES
        options.log_errors = False
        try:
            return re2.compile(self.pattern, options)  # re2 keeps a cache of compiled patterns
        except re2.error as error:
            raise BadTemplate(f"regex {self.pattern!r}: {_words(error)}") from error


@dataclass(frozen=True, slots=True)
class JsonPointer:
    """What the RFC 6901 pointer names in a JSON text: strings as they are, everything else as JSON."""

    pointer: str

    def __post_init__(self) -> None:
        if (size := len(self.pointer)) > MAX_POINTER_CHARACTERS:
            raise BadTemplate(f"JSON pointer of {size} characters exceeds the limit of {MAX_POINTER_CHARACTERS}")
        if self.pointer and not self.pointer.startswith("/"):
            raise BadTemplate(f"JSON pointer {self.pointer!r} must be empty or begin with '/'")

    def apply(self, text: str) -> str:
        _must_be_readable("json_pointer", text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TransformFailed(f"json_pointer {self.pointer!r}: {_shown(text)} is not JSON: {error}") from error
        for step in self.pointer.split("/")[1:]:
            value = self._step(value, step.replace("~1", "/").replace("~0", "~"))
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _step(self, value: Any, step: str) -> Any:
        if isinstance(value, dict) and step in value:
            return value[step]
        is_place = step.isdecimal() and len(step) <= len(str(len(value)))  # int() of very many digits raises
        if isinstance(value, list) and is_place and int(step) < len(value):
            return value[int(step)]
        raise TransformFailed(f"json_pointer {self.pointer!r}: there is no {step!r} in {_shown(json.dumps(value))}")


@dataclass(frozen=True, slots=True)
class FirstJson:
    """The first JSON object or array in the text, as it stands there."""

    def apply(self, text: str) -> str:
        _must_be_readable("first_json", text)
        decoder = json.JSONDecoder()
        left = 16 * len(text) + _JSON_CHARACTERS
        for start in islice((index for index, character in enumerate(text) if character in "{["), MAX_JSON_STARTS):
            try:
                _, end = decoder.raw_decode(text, start)
            except (ValueError, RecursionError) as error:
                left -= _read_in_vain(error, text, start)
                if left < 0:
                    break
            else:
                return text[start:end]
        raise TransformFailed(f"first_json: no JSON object or array was found in {_shown(text)}")


def _must_be_readable(name: str, text: str) -> None:
    if len(text) > MAX_JSON_CHARACTERS:
        raise TransformFailed(f"{name}: JSON is read in at most {MAX_JSON_CHARACTERS} characters, not in {len(text)}")


def _read_in_vain(error: ValueError | RecursionError, text: str, start: int) -> int:
    """How many characters were looked at before this start turned out to be none."""
    if isinstance(error, RecursionError):
        return _JSON_CHARACTERS // 16  # as deep as it goes
    if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated string"):
        return error.pos - start
    return len(text) - start


MAX_JSON_STARTS = 256
_JSON_CHARACTERS = 2**16
"""Each start may read to the end of the text. So their number is bounded, and what all of them read in vain: by 16
times the text's length, and this."""

Transform = Strip | Truncate | Lines | Regex | JsonPointer | FirstJson


# ---- the wire's form -------------------------------------------------------------------------------


def parse_transforms(value: Any, patterns: set[str] | None = None) -> tuple[Transform, ...]:
    """Read `"strip"`, `{"regex": {"pattern": …, "group": 1}}`, or a list of such. Errors: `BadTemplate`.

    `patterns` are those that the same request has named already; these are added, before they are compiled."""
    patterns = set() if patterns is None else patterns
    found = tuple(_read(one, patterns) for one in _flat(value))
    if sum(isinstance(one, JsonPointer | FirstJson) for one in found) > MAX_JSON_TRANSFORMS:
        raise BadTemplate(f"at most {MAX_JSON_TRANSFORMS} of the transforms that follow each other read JSON")
    return found


def _flat(value: Any) -> list[Any]:
    """What stands in lists, and in lists in them."""
    found: list[Any] = []
    left = [value]
    for _ in range(4 * MAX_TRANSFORMS):  # there may be lists of nothing, too
        if not left:
            return found
        one = left.pop()
        if isinstance(one, Sequence) and not isinstance(one, str):
            if len(one) > MAX_TRANSFORMS:
                break
            left += reversed(one)
        elif one is not None:
            found.append(one)
        if len(found) > MAX_TRANSFORMS:
            break
    raise BadTemplate(f"at most {MAX_TRANSFORMS} transforms follow each other")


def _read(value: Any, patterns: set[str]) -> Transform:
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise BadTemplate(f"a transform is a name, or an object with one name; got {_told(value)}")
    ((name, given),) = value.items()
    if name not in _READERS:
        raise BadTemplate(f"unknown transform {_told(name)}; known are {', '.join(sorted(_READERS))}")
    try:
        return _READERS[name](given, patterns)
    except (TypeError, KeyError, ValueError) as error:
        raise BadTemplate(f"transform {name!r} cannot take {_told(given)}: {error}") from error


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("expected a whole number that is not negative")
    return value


def _place(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("expected a whole number or null")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _lines(given: Any) -> Lines:
    if not isinstance(given, Mapping):
        raise ValueError("expected an object")
    return Lines(_place(given.get("first")), _place(given.get("end")))


def _regex(given: Any, patterns: set[str]) -> Regex:
    has_group = isinstance(given, Mapping)
    pattern = _text(given["pattern"] if has_group else given)
    patterns.add(pattern)
    if len(patterns) > MAX_PATTERNS:
        raise BadTemplate(f"at most {MAX_PATTERNS} different regexes are in one request")
    return Regex(pattern, _count(given.get("group", 0)) if has_group else 0)


_READERS: dict[str, Callable[[Any, set[str]], Transform]] = {
    "strip": lambda given, _: Strip(),
    "truncate": lambda given, _: Truncate(_count(given["characters"] if isinstance(given, Mapping) else given)),
    "lines": lambda given, _: _lines(given),
    "regex": _regex,
    "json_pointer": lambda given, _: JsonPointer(_text(given["pointer"] if isinstance(given, Mapping) else given)),
    "first_json": lambda given, _: FirstJson(),
}

NAMES = tuple(sorted(_READERS))
"""Of the transforms that there are, as the wire knows them."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _told(value: Any) -> str:
    """A part of a request, which may be of any size."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of thousands of digits
        return f"{type(value).__name__} beyond all reading"


def _words(error: Exception) -> str:
    argument = error.args[0] if error.args else ""
    return argument.decode("utf-8", "replace") if isinstance(argument, bytes) else str(argument)
