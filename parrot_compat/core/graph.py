"""The graph of a session: which call makes which variable, and which calls read it.

It knows names and edges only: no texts, no tasks, no engines, no event loop.

The invariants: a variable has at most one producer; a call waits for exactly those of its inputs that have
no value yet; no call waits for itself, however far around. `check()` asserts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

from .call import Call, CallId
from .errors import AlreadySettled, CallerError, CycleInGraph, UnknownVariable
from .prefix import boundary_hashes, opening_hash
from .prompt import ChatPrompt, Constant, Prompt, Segment, TextPrompt, TokensPrompt

__all__ = ["Graph"]


class Graph:
    """Every operation costs the edges it touches. (Refusing a cycle also walks what hangs on a variable that was
    read before it had a producer, on the smaller side of the new call.)"""

    def __init__(self) -> None:
        self._calls: dict[CallId, Call] = {}
        self._producers: dict[str, CallId | None] = {}  # every known variable; None: set from outside
        self._consumers: dict[str, list[CallId]] = {}
        self._missing: dict[CallId, set[str]] = {}  # calls that wait, and for what
        self._settled: set[str] = set()
        self._dead: set[str] = set()  # variables that will have no value, and that no call may write

    def __len__(self) -> int:
        return len(self._calls)

    # ---- questions -----------------------------------------------------------------------------------

    def has_variable(self, variable: str) -> bool:
        return variable in self._producers

    def producer(self, variable: str) -> CallId | None:
        """`GetProducer`; `None` for a variable that is set from outside."""
        self._must_know(variable)
        return self._producers[variable]

    def consumers(self, variable: str) -> tuple[CallId, ...]:
        """`GetConsumers`, in the order in which they were added."""
        self._must_know(variable)
        return tuple(self._consumers.get(variable, ()))

    def missing(self, call: CallId) -> frozenset[str]:
        """Inputs that have no value yet."""
        return frozenset(self._missing.get(call, ()))

    def prefix_hashes(self, call: CallId, identity: Callable[[str], str]) -> tuple[str, ...]:
        """`PrefixHash` at each variable boundary of the call's prompt, see `prefix.boundary_hashes`."""
        return boundary_hashes(self._calls[call].prompt, identity)

    def alike(self, calls: Sequence[CallId]) -> dict[CallId, str]:
        """Which of the calls begin with the same text before their first input: what they share is computed once where
        they run together. A call that is like no other is not named."""
        members: defaultdict[str, list[CallId]] = defaultdict(list)
        for call in calls:
            prompt = self._calls[call].prompt
            if _has_opening(prompt):
                members[f"prefix:{opening_hash(prompt)}"].append(call)
        return {call: group for group, together in members.items() if len(together) > 1 for call in together}

    # ---- changes ---------------------------------------------------------------------------------------

    def declare(self, variable: str) -> None:
        """Make a variable known before anything writes it. Does nothing if it is."""
        self._producers.setdefault(variable, None)

    def add(self, calls: Sequence[Call]) -> tuple[CallId, ...]:
        """Take all of the calls, in any order among themselves, or none. Returns those that miss nothing.

        Errors: `CallerError` (an id twice), `AlreadySettled` (an output that is written already or has another
        producer), `UnknownVariable` (an input nobody knows), `CycleInGraph`.
        """
        fresh: list[str] = [call.output for call in calls if call.output not in self._producers]
        added: list[Call] = []
        for variable in fresh:
            self.declare(variable)
        try:
            for call in calls:
                self._add(call)
                added.append(call)
        except CallerError:
            for call in reversed(added):
                self._remove(call)
            for variable in dict.fromkeys(fresh):
                del self._producers[variable]
            raise
        return tuple(call.id for call in calls if call.id not in self._missing)

    def settle(self, variable: str) -> tuple[CallId, ...]:
        """The variable has its value. Returns the calls that miss nothing any more, in the order they were added."""
        self._must_know(variable)
        if variable in self._settled:
            raise AlreadySettled(f"variable {variable!r} is already settled")
        self._settled.add(variable)
        ready: list[CallId] = []
        for call in self._consumers.get(variable, ()):
            missing = self._missing[call]
            missing.discard(variable)
            if not missing:
                del self._missing[call]
                ready.append(call)
        return tuple(ready)

    def end(self, variable: str) -> None:
        """The variable, which no call writes, will never have a value: no call may write it any more."""
        self._must_know(variable)
        self._dead.add(variable)

    def check(self) -> None:
        for call in self._calls.values():
            assert self._producers[call.output] == call.id
            inputs = call.prompt.inputs()
            assert all(self._consumers[variable].count(call.id) == 1 for variable in inputs)
            assert self._missing.get(call.id, set()) == set(inputs) - self._settled
        for variable, producer in self._producers.items():
            assert producer is None or self._calls[producer].output == variable
        for variable, consumers in self._consumers.items():
            assert consumers and variable in self._producers
            assert all(variable in self._calls[consumer].prompt.inputs() for consumer in consumers)
        assert self._settled <= self._producers.keys()
        assert all(self._producers[variable] is None for variable in self._dead) and not self._dead & self._settled
        self._check_order()

    # ---- inside ----------------------------------------------------------------------------------------

    def _must_know(self, variable: str) -> None:
        if variable not in self._producers:
            raise UnknownVariable(f"no variable {variable!r} in this session")

    def _add(self, call: Call) -> None:
        if call.id in self._calls:
            raise CallerError(f"call {call.id!r} exists already in this session")
        if call.output in self._settled or call.output in self._dead:
            raise AlreadySettled(f"variable {call.output!r} is already settled; call {call.id!r} cannot write it")
        other = self._producers[call.output]
        if other is not None:
            raise AlreadySettled(f"variable {call.output!r} is the output of call {other!r}, not also of {call.id!r}")
        inputs = call.prompt.inputs()
        for variable in inputs:
            if variable not in self._producers:
                raise UnknownVariable(f"call {call.id!r} reads variable {variable!r}, which this session does not know")
        missing = {variable for variable in inputs if variable not in self._settled}
        if missing and (cycle := self._cycle(call, missing)):
            raise CycleInGraph("calls would wait for each other: " + " → ".join(map(repr, cycle)))
        self._calls[call.id] = call
        self._producers[call.output] = call.id
        for variable in inputs:
            self._consumers.setdefault(variable, []).append(call.id)
        if missing:
            self._missing[call.id] = missing

    def _remove(self, call: Call) -> None:
        for variable in call.prompt.inputs():
            self._consumers[variable].remove(call.id)
            if not self._consumers[variable]:
                del self._consumers[variable]
        self._missing.pop(call.id, None)
        self._producers[call.output] = None
        del self._calls[call.id]

    def _cycle(self, call: Call, missing: Iterable[str]) -> list[CallId] | None:
        """The calls of the cycle that `call` would close, or `None`.

        Walks from its output downstream and from its inputs upstream by turns and stops when one side has no
        more to show: appending to a graph, at either end, costs nothing.
        """
        # of each variable that was reached: the call that lies between it and the one it was reached from, and that one
        down: _Steps = {call.output: None}
        up: _Steps = dict.fromkeys(missing)
        down_open: list[str] = [call.output]
        up_open = list(up)
        while down_open and up_open:
            variable = down_open.pop()
            if variable in up:
                return [call.id, *reversed(_way(down, variable)), *_way(up, variable), call.id]
            for consumer in self._consumers.get(variable, ()):
                output = self._calls[consumer].output
                if output not in down:
                    down[output] = consumer, variable
                    down_open.append(output)
            variable = up_open.pop()
            if variable in down:
                return [call.id, *reversed(_way(down, variable)), *_way(up, variable), call.id]
            producer = self._producers[variable]
            for upstream in self._missing.get(producer, ()) if producer is not None else ():
                if upstream not in up:
                    assert producer is not None
                    up[upstream] = producer, variable
                    up_open.append(upstream)
        return None

    def _check_order(self) -> None:
        """Every waiting call can run some day: peel off calls whose missing inputs come from calls peeled before."""
        waits = {call: {self._producers[variable] for variable in self._missing[call]} for call in self._missing}
        while waits:
            free = [call for call, producers in waits.items() if not producers & waits.keys()]
            assert free, f"calls wait for each other: {sorted(waits)}"
            for call in free:
                del waits[call]


_Steps = dict[str, tuple[CallId, str] | None]


def _way(steps: _Steps, variable: str) -> list[CallId]:
    """The calls from the variable back to where the walk began."""
    way: list[CallId] = []
    while (step := steps[variable]) is not None:
        call, variable = step
        way.append(call)
    return way


def _opening(prompt: Prompt) -> Segment | None:
    """The first segment that the model reads."""
    match prompt:
        case TextPrompt(segments):
            return segments[0] if segments else None
        case ChatPrompt(messages):
            return next((message.content[0] for message in messages if message.content), None)
        case TokensPrompt():
            return None
        case _:
            assert_never(prompt)


def _has_opening(prompt: Prompt) -> bool:
    """True where there is text before the first input: only then do calls that begin alike share something."""
    opening = _opening(prompt)
    return bool(prompt.inputs()) and isinstance(opening, Constant) and bool(opening.text)
