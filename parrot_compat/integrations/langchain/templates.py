"""What a prompt template does with each variable: copies it, or looks at it.

It knows LangChain's template classes and the three template languages, and formats nothing. A text that does
not exist yet can stand in a prompt only where the template copies it and does nothing else.

The invariant: what this module does not know for certain counts as looking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)
from langchain_core.utils import mustache

from .values import is_plain

__all__ = ["Uses", "uses_of"]

STRING_MESSAGES = (
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
    HumanMessagePromptTemplate,
    SystemMessagePromptTemplate,
)


@dataclass(frozen=True, slots=True)
class Uses:
    """What one prompt does with its variables."""

    copied: frozenset[str]
    """In text, by bare substitution."""
    looked_at: frozenset[str]
    """In text, in any other way (a variable may be in both)."""
    placed: frozenset[str]
    """As messages."""
    identity: str
    """Short, and the same for prompts with the same texts."""

    @property
    def names(self) -> frozenset[str]:
        return self.copied | self.looked_at | self.placed

    def only_copies(self, name: str) -> bool:
        return name in self.copied and name not in self.looked_at and name not in self.placed


def uses_of(prompt: Any) -> Uses | None:
    """`None` for prompts whose formatting is, or may be, someone's own code."""
    copied: set[str] = set()
    looked_at: set[str] = set()
    placed: set[str] = set()
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(prompt):
        if part is None:
            return None
        digest.update(repr((type(part).__name__, _source(part))).encode())
        if isinstance(part, MessagesPlaceholder):
            placed.add(part.variable_name)
        elif isinstance(part, PromptTemplate):
            text = _text_uses(part.template, part.template_format)
            if text is None:
                return None
            copied |= text[0]
            looked_at |= text[1]
    return Uses(frozenset(copied), frozenset(looked_at), frozenset(placed), digest.hexdigest())


def _parts(prompt: Any) -> Iterator[PromptTemplate | MessagesPlaceholder | BaseMessage | None]:
    """The leaves of a prompt in order; `None` for one that is not known."""
    kind = type(prompt)
    partials = prompt.partial_variables.values() if kind in (PromptTemplate, ChatPromptTemplate) else ()
    if any(callable(value) or not is_plain(value) for value in partials):
        yield None  # a function of the app's, or its own way to be written: it must run when the app runs, and as often
    elif kind is PromptTemplate or kind is MessagesPlaceholder or isinstance(prompt, BaseMessage):
        yield prompt
    elif kind is ChatPromptTemplate:
        for message in prompt.messages:
            yield from _parts(message)
    elif kind in STRING_MESSAGES and not isinstance(prompt.prompt, list):
        yield from _parts(prompt.prompt)
    else:
        yield None


def _source(part: PromptTemplate | MessagesPlaceholder | BaseMessage) -> object:
    if isinstance(part, PromptTemplate):
        return part.template
    return part.variable_name if isinstance(part, MessagesPlaceholder) else part.content


Names = tuple[frozenset[str], frozenset[str]]


@lru_cache(maxsize=1024)
def _text_uses(source: str, language: str) -> Names | None:
    """(copied, looked at), or `None` if the template cannot be read."""
    reader = {"f-string": _f_string, "jinja2": _jinja2, "mustache": _mustache}.get(language)
    if reader is None:
        return None
    try:
        return reader(source)
    except Exception:  # a template that does not parse: the app will be told so when it formats it
        return None


def _f_string(source: str) -> Names:
    copied: set[str] = set()
    looked_at: set[str] = set()
    for _, field, spec, conversion in Formatter().parse(source):
        if field is None:
            continue
        if field.isidentifier() and not spec and not conversion:
            copied.add(field)
        else:
            looked_at |= {field, field.split(".")[0].split("[")[0]}
            looked_at |= {inner for _, inner, _, _ in Formatter().parse(spec or "") if inner}
    return frozenset(copied), frozenset(looked_at)


def _jinja2(source: str) -> Names:
    from jinja2 import nodes
    from jinja2.sandbox import SandboxedEnvironment

    tree = SandboxedEnvironment().parse(source)
    bare: set[int] = set()

    def outputs(body: list[nodes.Node]) -> None:
        """Text that is sent out as it is: not inside a filter block, a macro, an assignment."""
        for node in body:
            if isinstance(node, nodes.Output):
                bare.update(id(item) for item in node.nodes if isinstance(item, nodes.Name))
            elif isinstance(node, nodes.For):
                outputs(node.body)
                outputs(node.else_)
            elif isinstance(node, nodes.If):
                outputs(node.body)
                outputs(list(node.elif_))
                outputs(node.else_)

    outputs(tree.body)
    names = list(tree.find_all(nodes.Name))
    copied = {name.name for name in names if id(name) in bare}
    looked_at = {name.name for name in names if id(name) not in bare}
    return frozenset(copied), frozenset(looked_at)


def _mustache(source: str) -> Names:
    copied: set[str] = set()
    looked_at: set[str] = set()
    for kind, key in mustache.tokenize(source):
        if kind == "no escape" and key.isidentifier():
            copied.add(key)
        elif kind != "literal":
            looked_at.add(key.split(".")[0])  # `{{x}}` escapes HTML, a section asks whether there is anything
    return frozenset(copied), frozenset(looked_at)
