"""The symbolic run: a chain evaluated on its real input, with markers for the texts that models will write.

It knows which runnables only move data and evaluates those; prompts are formatted by their own code. Anything
else is opaque: its value becomes unknown, branches that do not use it go on, and nothing of the app's own
code is run. It sends nothing.

The invariant: evaluating a chain has no effect that the app could notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBinding, RunnableEach
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.runnables.retry import RunnableRetry

from parrot_compat.integrations.plans.drafting import Drafting, map_stage
from parrot_compat.integrations.remote import Endpoint

from .classic import classic_step
from .copying import is_copy_only
from .drafts import can_be_planned, draft_body
from .groups import narrower, width_of
from .json_parsers import WholeJsonParser, WholePydanticParser
from .kinds import kind_of
from .objects import Parsed, is_getter, parsed, schema_of
from .settings import ParrotSettings
from .switches import is_switched_off
from .templates import Uses, uses_of
from .values import DICTS, LISTS, UNKNOWN, are_whole, call_answering, is_known, is_plain, stand_in

__all__ = ["Walk"]

Arguments = Mapping[str, Any]
NONE: Arguments = {}


class Walk:
    """One symbolic run. `drafts` are the calls it found. Errors, wherever it comes to a call: `PlanTooLarge`."""

    def __init__(self, refused: Callable[[str], bool] = lambda identity: False) -> None:
        self._drafting = Drafting()
        self.drafts = self._drafting.found
        self.markers = self._drafting.markers
        self.width: int | None = None
        """The least `max_concurrency` that a part of the chain was given."""
        self._refused = refused
        self._walked: dict[int, tuple[Runnable[Any, Any], float]] = {}
        self._identities: dict[int, tuple[PromptValue, str]] = {}
        self._stage: list[tuple[str, int, int]] = []
        self._in_element = 0
        self._servers: dict[str, Endpoint] = {}
        self._steps: dict[type, Callable[[Any, Any, Arguments], Any]] = {
            RunnableSequence: self._sequence,
            RunnableBinding: self._binding,
            RunnableRetry: self._binding,
            RunnableWithFallbacks: lambda r, value, given: self.walk(r.runnable, value, given),
            RunnableParallel: self._parallel,
            RunnableAssign: self._assign,
            RunnablePick: self._pick,
            RunnablePassthrough: lambda r, value, _: value if r.func is None and r.afunc is None else UNKNOWN,
            RunnableEach: self._each,
            RunnableLambda: self._function,
            PromptTemplate: self._prompt,
            ChatPromptTemplate: self._prompt,
            StrOutputParser: self._text,
            JsonOutputParser: self._parser,
            PydanticOutputParser: self._parser,
            WholeJsonParser: self._parser,
            WholePydanticParser: self._parser,
        }

    # ---- coverage --------------------------------------------------------------------------------

    def covers(self, runnable: Runnable[Any, Any], step: int = 0) -> bool:
        """This runnable, from its step number `step` on, has been evaluated: what it calls is drafted."""
        known = self._walked.get(id(runnable))
        return known is not None and step < known[1]

    def _cover(self, runnable: Any, until: float = float("inf")) -> None:
        # One sequence may stand in several places, and come further in one of them. Where that is not certain,
        # less is planned: a call too few costs a round trip, a call too many is waste.
        known = self._walked.get(id(runnable))
        self._walked[id(runnable)] = (runnable, until if known is None else max(until, known[1]))

    # ---- evaluation ------------------------------------------------------------------------------

    def walk(self, runnable: Any, value: Any, given: Arguments = NONE) -> Any:
        """The runnable's value for this input, as far as it is known."""
        if value is UNKNOWN:
            return UNKNOWN
        step = self._steps.get(kind_of(runnable))
        if step is None:
            if isinstance(runnable, ParrotSettings):
                return self._model(runnable, value, given)
            if (classic := classic_step(kind_of(runnable))) is not None:
                self._cover(runnable)
                return classic(self, runnable, value)
            compiled = getattr(type(runnable), "__parrot_compiled__", False)
            return self._binding(runnable, value, given) if compiled else UNKNOWN
        if kind_of(runnable) is not RunnableSequence:
            self._cover(runnable)
        return step(runnable, value, given)

    def sequence_from(self, sequence: RunnableSequence[Any, Any], start: int, value: Any) -> Any:
        """The rest of a sequence that has come as far as its step number `start`."""
        return self._sequence(sequence, value, NONE, start)

    def _sequence(self, sequence: Any, value: Any, given: Arguments, start: int = 0) -> Any:
        steps = sequence.steps
        stopped: int | None = None
        """The first step since the last draft that begins with something unknown in its input: with its real one more
        may be found."""
        for number in range(start, len(steps)):
            if stopped is None and not is_known(value):
                stopped = number
            drafted = len(self.drafts)
            value = self.walk(steps[number], value, given if number == 0 else NONE)
            if len(self.drafts) > drafted:  # it must not be evaluated a second time
                stopped = None if value is not UNKNOWN else number + 1
            elif value is UNKNOWN and stopped is None:
                stopped = number
            if value is UNKNOWN:
                break
        self._cover(sequence, float("inf") if stopped is None else stopped)
        return value

    def _binding(self, binding: Any, value: Any, given: Arguments) -> Any:
        if is_switched_off(binding.config.get("metadata")):
            return UNKNOWN
        self.width = narrower(self.width, width_of(binding.config))
        return self.walk(binding.bound, value, {**binding.kwargs, **given})

    def _parallel(self, parallel: Any, value: Any, _: Arguments) -> Any:
        return {key: self.walk(step, value) for key, step in parallel.steps__.items()}

    def _assign(self, assign: Any, value: Any, _: Arguments) -> Any:
        mapped = self.walk(assign.mapper, value)
        return {**value, **mapped} if type(value) in DICTS and type(mapped) in DICTS else UNKNOWN

    def _pick(self, pick: Any, value: Any, _: Arguments) -> Any:
        if type(value) not in DICTS:
            return UNKNOWN
        if isinstance(pick.keys, str):
            return value.get(pick.keys)
        return {key: value[key] for key in pick.keys if key in value} or None

    def _each(self, each: Any, value: Any, given: Arguments) -> Any:
        if type(value) not in LISTS:
            return UNKNOWN
        return self.group([partial(self.walk, each.bound, item, given) for item in value])

    def group(self, elements: Sequence[Callable[[], Any]]) -> list[Any]:
        """The same steps over several inputs: their calls at one place are one stage."""
        name = f"{self._drafting.name}-{len(self.drafts)}"
        before = self._in_element
        values = []
        for index, element in enumerate(elements):
            self._stage.append((name, index, len(elements)))
            self._in_element = 0
            values.append(element())
            self._stage.pop()
        self._in_element = before
        return values

    def _function(self, function: Any, value: Any, given: Arguments) -> Any:
        called = getattr(function, "func", None)
        if called is None or hasattr(function, "afunc") or given:
            return UNKNOWN
        if isinstance(value, Parsed) and is_getter(called):
            return value.picked(called)
        if not is_copy_only(called) or (not isinstance(called, itemgetter) and not is_known(value)):
            return UNKNOWN
        if isinstance(called, itemgetter) and type(value) not in DICTS | LISTS:
            return UNKNOWN  # an index into a text looks at it
        try:
            copied = called(value)
        except Exception:  # the app will meet it too
            return UNKNOWN
        return copied if are_whole(copied, self.markers) else UNKNOWN

    def _text(self, _parser: Any, value: Any, _: Arguments) -> Any:
        if isinstance(value, BaseMessage):
            return value.content if isinstance(value.content, str) else UNKNOWN
        return value if isinstance(value, str) else UNKNOWN

    def _parser(self, parser: Any, value: Any, _: Arguments) -> Any:
        """An object that does not exist yet: of a call that is held to a schema, and of no other."""
        call = call_answering(value, self.markers)
        schema = schema_of(self.drafts[call].call.request) if call is not None else None
        return UNKNOWN if call is None or schema is None else parsed(parser, self.markers, call, schema)

    # ---- prompts and models ----------------------------------------------------------------------

    def _prompt(self, prompt: Any, value: Any, _: Arguments) -> Any:
        uses = uses_of(prompt)
        if uses is None:
            return UNKNOWN
        if isinstance(value, Parsed) and (items := value.items(prompt.input_variables)) is not None:
            value = items
        if type(value) not in DICTS:
            if len(prompt.input_variables) != 1:
                return UNKNOWN
            value = {prompt.input_variables[0]: value}
        given = {name: value[name] for name in uses.names if name in value}
        if not all(self._can_stand(uses, name, item) for name, item in given.items()):
            return UNKNOWN
        try:
            formatted = prompt.format_prompt(**given)
        except Exception:  # the app will meet it too
            return UNKNOWN
        self._identities[id(formatted)] = (formatted, uses.identity)
        return formatted

    def _can_stand(self, uses: Uses, name: str, value: Any) -> bool:
        """A value of this kind can be formatted under this name now, as it will be then."""
        if not is_known(value) or not is_plain(value):
            return False
        if not stand_in(value, self.markers):
            return True
        if name in uses.placed and name not in uses.copied | uses.looked_at:
            return True
        # A container or a message formatted into text is written with `repr`, which looks.
        return isinstance(value, str) and uses.only_copies(name)

    def _model(self, model: ParrotSettings, value: Any, given: Arguments) -> Any:
        identity = self._identities.get(id(value), (None, None))[1]
        if not can_be_planned(model) or (identity is not None and self._refused(identity)):
            return UNKNOWN
        try:
            messages = model._convert_input(value).to_messages()
            drafted = draft_body(model, messages, given, self._drafting)
        except Exception:  # the app will meet it too
            return UNKNOWN
        if drafted is None:
            return UNKNOWN
        body, reads = drafted
        endpoint = model._endpoint
        if any(self._servers[read] != endpoint.server for read in reads):
            return UNKNOWN  # a server cannot read what another one writes
        number = self._drafting.add(endpoint, body, reads, function=identity, stage=self._stage_of_next())
        self._servers[self.drafts[number].call.id] = endpoint.server
        # What a tool-calling or block-writing model returns is more than its text.
        if "tools" in body or model.output_version == "v1":
            return UNKNOWN
        return AIMessage(content=self.markers.text(number))

    def _stage_of_next(self) -> dict[str, Any] | None:
        if not self._stage:
            return None
        name, index, size = self._stage[-1]
        self._in_element += 1
        return map_stage(f"{name}.{self._in_element}", index, size)
