"""Tool styles: how each family of models writes that it calls a tool, one row for each.

    TOOL_STYLES["hermes"].mark          # "<tool_call>"

Whoever reads calls, holds a model to them or looks for them in a checkpoint asks the row. It knows nothing of grammars
and of how a text is read: a new style is a name (`output_format.ToolStyle`), a row, and its rule in the grammar; one
whose calls are no JSON needs a reader, too.

The invariant: a row is all that tells one style from another, but for the rule by which a grammar spells its calls.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from .output_format import ToolStyle

__all__ = ["SHORT_ID", "TOOL_STYLES", "UNKNOWN_STYLE", "CallSyntax", "held_back", "shown_style"]

SHORT_ID = "[a-zA-Z0-9]{9}"
"""The ids that Mistral's templates take."""
UNKNOWN_STYLE: ToolStyle = "hermes"
"""Stands in for one that is not known: most of those whose templates do not show it were trained with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSyntax:
    """How calls are written in one style. A call is a JSON object with a name and arguments, or, where there is an
    `arguments_mark`, a name with arguments behind it, or, where there is a `call_mark`, tags around plain text."""

    mark: str
    """Stands before a call, or before a run of calls."""
    other_marks: tuple[str, ...] = ()
    """Stand there in its place, where a model writes them."""
    close: str = ""
    """Stands behind a call."""
    id_mark: str = ""
    """Stands between the name of a call and its id, where a model writes one."""
    arguments_mark: str = ""
    """Stands before the arguments of a call that is a name and they."""
    call_mark: str = ""
    """Begins the first tag of a call. It tells a call where the mark is left out, too."""
    is_amid_text: bool = True
    """The mark tells a call from the text around it. False: an answer begins with calls, with the mark or without, or
    has none."""
    bare: str = ""
    """How calls begin without the mark, where nothing else has come before them."""
    between: str = " \t\r\n;,[]}"
    """What stands between calls and is none of them; a brace too many is a usual slip."""
    arguments_key: str = "arguments"
    """The name of the arguments in the JSON object."""
    has_short_ids: bool = False
    """Its templates take ids like `SHORT_ID`, and no others."""
    shown_by: tuple[str, ...] = ()
    """The words by which a chat template shows a style whose calls need no mark."""

    @property
    def is_named(self) -> bool:
        """A call is a name with arguments behind it, and no JSON object."""
        return bool(self.arguments_mark)

    @property
    def openings(self) -> tuple[str, ...]:
        """With any of them calls begin."""
        return (self.mark, *self.other_marks, *([self.call_mark] if self.call_mark else []))

    @property
    def marks(self) -> tuple[str, ...]:
        """What is no text of an answer that has calls: none where the object alone tells a call, for the mark before
        other text is none of the answer."""
        marks = (self.mark, *self.other_marks, self.close, self.id_mark, self.arguments_mark)
        return tuple(mark for mark in marks if mark) if self.is_amid_text else ()

    def is_in(self, words: Container[str]) -> bool:
        """A chat template, or a vocabulary's control tokens, show this style."""
        telling = self.shown_by or (self.mark, self.arguments_mark, self.call_mark)
        return all(word in words for word in telling if word)


TOOL_STYLES: Mapping[ToolStyle, CallSyntax] = {
    # of several that a checkpoint shows, the first is its own
    "mistral_args": CallSyntax(
        mark="[TOOL_CALLS]", id_mark="[CALL_ID]", arguments_mark="[ARGS]", between=" \t\r\n;,}", has_short_ids=True
    ),
    "mistral": CallSyntax(mark="[TOOL_CALLS]", bare="[", has_short_ids=True),
    # Granite 3.1 is told of one mark and writes the other; Phi-4 mini closes its list
    "granite": CallSyntax(mark="<|tool_call|>", other_marks=("<tool_call>",), close="<|/tool_call|>", bare="["),
    "qwen3_coder": CallSyntax(mark="<tool_call>", close="</tool_call>", call_mark="<function="),
    "hermes": CallSyntax(mark="<tool_call>", close="</tool_call>"),
    "llama3_json": CallSyntax(
        mark="<|python_tag|>",
        is_amid_text=False,
        bare="{",
        arguments_key="parameters",
        shown_by=("ipython", "parameters"),
    ),
}


def shown_style(template: str, controls: Container[str]) -> ToolStyle:
    """As the chat template shows it, else as the control tokens do; Hermes' where neither is one that we know."""
    by_template = [style for style, syntax in TOOL_STYLES.items() if syntax.is_in(template)]
    by_controls = [style for style, syntax in TOOL_STYLES.items() if not syntax.shown_by and syntax.is_in(controls)]
    return [*by_template, *by_controls, UNKNOWN_STYLE][0]


def held_back(text: str, *marks: str) -> int:
    """Characters at the text's end that may yet be none of it: a beginning of a mark, and white space before that."""
    begun = max(_begun(text, mark) for mark in marks)
    return len(text) - len(text[: len(text) - begun].rstrip())


def _begun(text: str, mark: str) -> int:
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
