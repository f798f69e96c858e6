"""Grammars: which tokens an answer in a wanted form may go on with, and how it comes to an end in time.

With `source` the only one that imports llguidance. Whoever needs it imports it when a form is asked for, so
that all else runs without the library. It knows tokens; nothing of sequences, steps or how tokens are drawn.

The invariant: the tokens that a `Form` has taken are always the beginning of a text that its grammar accepts; once few
are left, a way to such an end that fits into them is known, if one was found when they became few.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import llguidance

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import JsonSchema, OutputFormat, ToolCalls, size_of
from parrot_compat.core.tool_styles import TOOL_STYLES
from parrot_compat.gpu.drawing.token_bits import TokenBits, all_but

from .closing import Closings, Patience, bits_of
from .loosening import without_unreadable
from .source import held_size_of, source_of
from .tagged import CLOSING_TEXTS
from .vocabulary import without_names

__all__ = ["Form", "Grammars"]

_log = logging.getLogger(__name__)

_LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""Milliseconds for what people write; what needs more is refused."""
_KEPT = 64
"""Compiled grammars."""
_WATCHED = 128
"""So many tokens before the last one at least, and half as many as the format has characters, the end is in sight."""
_MOST_WATCHED = 4096
_PATIENCE, _LEAST_PATIENCE = 8, 1024
"""Tokens that the searches of an answer may look at: so many for each that may still be drawn, and this many more. Once
they are used up, the way to the end that is known is gone. What people ask for needs a tenth of it."""
_TRIED_EVERY, _SHORT = 8, 8
"""Every so many tokens half a closing is tried in place of the whole, unless it is so short already."""


class Grammars:
    """The grammars of one vocabulary."""

    def __init__(
        self,
        tokenizer: str,
        vocabulary: int,
        eos_token_ids: Sequence[int],
        added: Mapping[str, int] | None = None,
    ) -> None:
        """`tokenizer` is the text of a tokenizer.json, `added` are its added tokens by name."""
        self._ends = tuple(dict.fromkeys(eos_token_ids)) or (0,)
        spelled, self._named = without_names(tokenizer)
        self._tokens = llguidance.LLTokenizer(spelled, n_vocab=vocabulary, eos_token=list(self._ends))
        is_special = self._tokens.is_special_token
        self._controls = {
            name: token for name, token in (added or {}).items() if is_special(token) and token not in self._ends
        }
        self._closings = Closings(self._tokens, self._ends)
        self._tagged_closings = Closings(self._tokens, self._ends, CLOSING_TEXTS)
        self._going_on = all_but(self._ends, vocabulary // 8 + 8)
        self._compiled: OrderedDict[OutputFormat, llguidance.LLMatcher] = OrderedDict()
        self._checked: OrderedDict[OutputFormat, str] = OrderedDict()
        """What was found wrong with a format; "" for nothing. A search takes as long as a hundred steps."""
        self._worn: set[OutputFormat] = set()
        """Compiled, and near a limit: copies share what the library counts."""

    def check(self, format: OutputFormat) -> None:
        """Errors: `BadSchema` where it cannot be compiled, or where no answer of this form is found."""
        size_of(format)
        wrong = self._checked.get(format)
        if wrong is None:
            wrong = self._checked[format] = self._find_wrong(format)
            if len(self._checked) > _KEPT:
                self._checked.popitem(last=False)
        self._checked.move_to_end(format)
        if wrong:
            raise BadSchema(wrong)

    def _find_wrong(self, format: OutputFormat) -> str:
        try:
            matcher = self._matcher(format)
        except BadSchema as error:
            return str(error)
        if self._closings_of(format).find(matcher, _MOST_WATCHED // 8) is not None:
            return ""
        why = _first_line(matcher.get_error()) or "it may have none, or only very long ones"
        return f"no answer of this output format was found: {why}"

    def form(self, format: OutputFormat, *, ends_at_eos: bool = True) -> Form:
        """The form of one answer. Errors: `BadSchema`."""
        watched = min(_MOST_WATCHED, _WATCHED + held_size_of(format) // 2)
        renew = partial(self._renewed, format)
        closings = self._closings_of(format)
        return Form(self._matcher(format), closings, self._ends, self._going_on, watched, ends_at_eos, renew)

    def _closings_of(self, format: OutputFormat) -> Closings:
        is_tagged = isinstance(format, ToolCalls) and TOOL_STYLES[format.style].call_mark
        return self._tagged_closings if is_tagged else self._closings

    def _matcher(self, format: OutputFormat) -> llguidance.LLMatcher:
        size_of(format)
        compiled = self._compiled.get(format)
        if compiled is None or format in self._worn:
            compiled = self._compile(format)
            self._worn.discard(format)
            self._compiled[format] = compiled
            if len(self._compiled) > _KEPT:
                self._worn.discard(self._compiled.popitem(last=False)[0])
        self._compiled.move_to_end(format)
        return compiled.deep_copy()

    def _compile(self, format: OutputFormat) -> llguidance.LLMatcher:
        """Errors: `BadSchema`. What is wrong with what need not be held to is no error."""
        try:
            return self._compiled_as_it_is(format)
        except BadSchema as error:
            wrong = error
        for loosened in self._loosened(format):
            try:
                return self._compiled_as_it_is(loosened)
            except BadSchema as error:
                wrong = error
        raise wrong

    def _loosened(self, format: OutputFormat) -> Iterator[OutputFormat]:
        """Ways of holding an answer to less of it, the best first."""
        if (readable := without_unreadable(format, self._reads)) is not None:
            yield readable
        if isinstance(format, ToolCalls) and (loosened := format.loosened()) is not None:
            yield loosened

    def _reads(self, pattern: str) -> bool:
        try:
            self._compiled_as_it_is(JsonSchema.of({"type": "string", "pattern": pattern}))
        except BadSchema:
            return False
        return True

    def _compiled_as_it_is(self, format: OutputFormat) -> llguidance.LLMatcher:
        try:
            source = source_of(format, self._controls, self._named)
            compiled = llguidance.LLMatcher(self._tokens, source, limits=_LIMITS, log_level=0)
        except ValueError as error:  # half a surrogate pair, or a schema that the library cannot even begin with
            raise BadSchema(f"the output format cannot be read: {error}") from None
        if compiled.is_error():
            raise BadSchema(f"the output format cannot be compiled: {_first_line(compiled.get_error())}")
        return compiled

    def _renewed(self, format: OutputFormat) -> llguidance.LLMatcher:
        """A matcher with nothing behind it, for a form whose own has met a limit. Called beside the thread that
        compiles: what is kept is left to that."""
        if format in self._compiled:
            self._worn.add(format)
        return self._compile(format)


class Form:
    """One answer on its way. Nothing of it is ever taken back, so it outlives the pages of its sequence."""

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        closings: Closings,
        ends: tuple[int, ...],
        going_on: TokenBits,
        watched: int,
        ends_at_eos: bool,
        renew: Callable[[], llguidance.LLMatcher],
    ) -> None:
        self._matcher = matcher
        self._renew = renew
        self._taken: list[int] = []
        self._closings = closings
        self._ends = ends
        self._going_on = going_on
        self._watched = watched
        self._ends_at_eos = ends_at_eos
        self._closing: list[int] | None = None
        self._search_at = watched
        self._patience: Patience | None = None
        self.is_complete = False
        """Nothing can come any more."""
        self.is_ended = False
        """Its last token is an end of the text, and none of it."""

    def allowed(self, may_end: bool, without: Sequence[int] = ()) -> TokenBits:
        """What may come next. An end of the text may where it is complete, and `may_end` says so; those of `without`
        may where nothing else may."""
        bits = bits_of(self._matcher)
        if self._mend():
            bits = bits_of(self._matcher)
        if without and (others := bits & all_but(without, len(bits))).any():
            bits = others
        if not (may_end and self._ends_at_eos):
            going_on = bits & self._going_on[: len(bits)]
            if going_on.any():
                return going_on
        # Nothing at all: a limit of the library was met in the middle, and an end is all that is left.
        return bits if bits.any() else ~self._going_on

    def take(self, token: int, left: int) -> int:
        """`token` was drawn and `left` more may be. What is taken: it, or where it leads too far from the end, the
        next token of the way to the end."""
        if token in self._ends:
            return self._end_with(token)
        if left >= self._watched:
            self._consume(token)
            return token
        if self._closing is None and left <= self._search_at:
            self._closing = self._closings.find(self._matcher, left + 1, self._limited(left))
            self._search_at = left // 2  # a search that found nothing was dear
            self._mend()
        if self._closing is not None and not self._stays_near(token, left, self._closing):
            token, *self._closing = self._closing or self._ends[:1]
            if token in self._ends:
                return self._end_with(token)
            self._consume(token)
        elif self._closing is None:
            self._consume(token)
        return token

    def _end_with(self, token: int) -> int:
        if not self._matcher.is_accepting():  # where nothing else could come: a limit of the library was met
            _log.warning(
                "an answer ended before its form did: %s", _first_line(self._matcher.get_error()) or "no way on"
            )
        self.is_complete = self.is_ended = True
        return token

    def _stays_near(self, token: int, left: int, closing: list[int]) -> bool:
        """Take the token if the end can be reached after it, else stay."""
        if closing and token == closing[0]:
            self._closing = closing[1:]
            self._consume(token)
            return True
        self._consume(token)
        if len(closing) <= left and self._closings.closes(self._matcher, closing):
            self._shorten(closing, left)
            self._mend()
            return True
        found = self._closings.find(self._matcher, left, self._limited(left))
        if found is not None and len(found) <= left:
            self._closing = found
            self._mend()
            return True
        self._taken.pop()
        if not self._mend():
            self._matcher.rollback(1)
        self.is_complete = False
        return False

    def _limited(self, left: int) -> Patience:
        """Of all searches of this answer together: they hold up every other row of a step."""
        if self._patience is None:
            self._patience = Patience(_PATIENCE * left + _LEAST_PATIENCE)
        return self._patience

    def _shorten(self, closing: list[int], left: int) -> None:
        """A long closing is dear to follow, and often its second half will do: what the first was to fill is filled."""
        half = closing[len(closing) // 2 :]
        if left % _TRIED_EVERY == 0 and len(half) > _SHORT and self._closings.closes(self._matcher, half):
            self._closing = half

    def _consume(self, token: int) -> None:
        self._taken.append(token)
        self._matcher.consume_token(token)
        self._mend()
        self.is_complete = self._matcher.is_stopped()

    def _mend(self) -> bool:
        """Where the matcher has met a limit, a new one that has taken the same: what counts against the limit is all
        that was looked at, by searches and by other answers in this form too. False: there was nothing to mend."""
        if not self._matcher.is_error():
            return False
        renewed = self._renew()
        if renewed.try_consume_tokens(self._taken) == len(self._taken):
            self._matcher = renewed
        return True


def _first_line(text: str) -> str:
    return " ".join(text.split("<non-verbose/>")[0].split())[:300]
