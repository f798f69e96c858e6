"""Reading: what of a model's text is its answer, what is reasoning before it, and what are calls of tools.

    reader = Reader(Reading(tools="hermes", reasoning="think"))
    chunk = reader.read(chunk)          # text → text, reasoning and calls

It knows the families' ways to write these (`tool_styles`), nothing of prompts or of clients. What an engine has told
apart by itself (another server does) passes through.

The invariant: how a text is cut into chunks changes nothing of what is read out of it, and nothing of it is lost but
the marks and the white space around them, and what comes after the one call that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .call import Finish, Reading, Usage
from .engine import Chunk
from .output_format import ReasoningStyle, ToolStyle
from .tool_calls import CallPiece, ToolReader
from .tool_styles import TOOL_STYLES, held_back

__all__ = ["Reader", "ReasoningReader"]

_THINKS: Mapping[ReasoningStyle, tuple[str, str]] = {
    "think": ("<think>", "</think>"),
    "think_open": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
}


class Reader:
    """For one answer."""

    def __init__(self, reading: Reading) -> None:
        style = reading.reasoning
        self._reasoning = None if style is None or style == "none" else ReasoningReader(style)
        self._tools = None if reading.tools is None else _tool_reader(reading.tools, reading)
        self._is_plain = self._reasoning is None and self._tools is None and reading.is_parallel
        self._is_parallel = reading.is_parallel
        self.marks = _marks(reading)
        """What an engine shows as text even where it is a control token of the model, which is no text elsewhere."""
        self._prompt: Usage | None = None
        self._drawn_tokens = 0
        self._reasoning_tokens = 0

    def read(self, chunk: Chunk) -> Chunk:
        """The same stretch of output, told apart. What may yet become a mark is held back for the next.

        Where one call is wanted its end is that of the answer, if the engine tells what was used so far."""
        if self._is_plain:
            return chunk
        self._prompt = chunk.prompt or self._prompt
        self._drawn_tokens += len(chunk.tokens)
        is_end = chunk.finish is not None
        text, reasoning, calls, finish = chunk.text, chunk.reasoning, self._wanted(chunk.calls), chunk.finish
        if self._reasoning is not None:
            self._reasoning_tokens += 0 if self._reasoning.is_answering else len(chunk.tokens)
            thought, text = self._reasoning.push(text, is_end=is_end)
            reasoning += thought
        usage = chunk.usage
        if self._tools is not None and calls and not self._tools.pieces:
            # the engine tells calls apart by itself: what looks like one is text
            text, self._tools = self._tools.end()[0] + text, None
        if self._tools is not None:
            text, found = self._tools.push(text)
            if is_end:
                rest, last = self._tools.end()
                text, found = text + rest, found + last
            calls = (*calls, *found)
            ends_early = finish is not Finish.STOP or chunk.stop is not None  # not by the model itself
            if is_end and self._tools.pieces and not (ends_early and self._tools.is_cut):
                finish = Finish.TOOL_CALLS
            elif not is_end and self._tools.is_over and self._prompt is not None:
                finish, usage = Finish.TOOL_CALLS, replace(self._prompt, output_tokens=self._drawn_tokens)
        if usage is not None and self._reasoning is not None and self._drawn_tokens:
            # a text engine, which tells no tokens, counts by itself
            thought_tokens = self._reasoning_tokens if self._reasoning.has_reasoned else 0
            usage = replace(usage, reasoning_tokens=thought_tokens)
        told = text, reasoning, calls, finish, usage
        if told == (chunk.text, chunk.reasoning, chunk.calls, chunk.finish, chunk.usage):
            return chunk  # nearly all of them
        return replace(chunk, text=text, reasoning=reasoning, calls=calls, finish=finish, usage=usage)

    def _wanted(self, calls: tuple[CallPiece, ...]) -> tuple[CallPiece, ...]:
        return calls if self._is_parallel else tuple(piece for piece in calls if piece.index == 0)


def _tool_reader(style: ToolStyle, reading: Reading) -> ToolReader:
    return ToolReader(style, reading.is_parallel, reading.names, reading.is_first, reading.schemas)


@dataclass(slots=True)
class ReasoningReader:
    """Reasoning stands between the marks of its style, if the text begins with the first. `think_open`: the prompt has
    opened it already, so the text begins inside."""

    style: ReasoningStyle
    """Not `none`."""
    _held: str = ""
    has_reasoned: bool = False
    _is_inside: bool | None = None
    """`None`: not known yet."""
    _may_be_space: bool = True
    """Nothing but white space has come since the last mark: it belongs to the mark."""

    @property
    def is_answering(self) -> bool:
        """What comes now is no reasoning."""
        return self._is_inside is False

    def push(self, text: str, *, is_end: bool) -> tuple[str, str]:
        """The reasoning and the answer that are certain now."""
        self._held += text
        if self._is_inside is None and not self._begin(is_end):
            return "", ""
        reasoning = self._reason(is_end) if self._is_inside else ""
        return reasoning, "" if self._is_inside else self._answer()

    def _begin(self, is_end: bool) -> bool:
        """True once it is known where the text begins."""
        mark, begun = _THINKS[self.style][0], self._held.lstrip()
        if not is_end and len(begun) < len(mark) and mark.startswith(begun):
            return False
        if begun.startswith(mark):
            self._is_inside, self._held = True, begun.removeprefix(mark)
        else:
            self._is_inside = self.style == "think_open"
            self._may_be_space = self._is_inside
        self.has_reasoned = self._is_inside
        return True

    def _reason(self, is_end: bool) -> str:
        close = _THINKS[self.style][1]
        thought, mark, after = self._held.partition(close)
        if self._may_be_space:
            thought = thought.lstrip()
        if mark:
            self._is_inside, self._held, self._may_be_space = False, after, True
            return thought.rstrip()
        # a mark may have begun, and white space before it is the mark's
        safe = len(thought) if is_end else len(thought) - held_back(thought, close)
        told = thought[:safe].rstrip() if is_end else thought[:safe]
        self._held = "" if is_end else thought[safe:]
        self._may_be_space = self._may_be_space and not told
        return told

    def _answer(self) -> str:
        text, self._held = self._held, ""
        if self._may_be_space:
            text = text.lstrip()
            self._may_be_space = not text
        return text


def _marks(reading: Reading) -> tuple[str, ...]:
    style = reading.reasoning
    thinks = () if style is None or style == "none" else _THINKS[style]
    return (*thinks, *(() if reading.tools is None else TOOL_STYLES[reading.tools].marks))
