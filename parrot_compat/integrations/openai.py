"""Sessions, references, named values and graphs for apps that use the openai SDK as it is.

    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    summary = prompt("Summarise for {who}: {text}", who="a child", text=chapter)
    client.chat.completions.create(model=model, **said(summary, session="report 17", call="summary"))
    french = prompt("In French: {it}", it=ref("summary"))
    client.chat.completions.create(model=model, **said(french, session="report 17"))

Everything here makes plain arguments of `create` (`messages`, `extra_body`), or speaks through the client it is given.
It knows the `parrot` object and no framework. The invariant: what a model is told is what the app wrote, with the
values in their places; a server that knows nothing of `parrot` is told the same, unless a reference is in it.
"""

from __future__ import annotations

import string
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import openai

__all__ = ["AsyncSubmitted", "Graph", "Prompt", "Submitted", "prompt", "ref", "said", "variable"]

Part = Mapping[str, Any]
Objective = Literal["latency", "throughput", "background"]
WAIT_S = 30.0
"""Of one request for a text; where it has none by then, the next one follows."""


def ref(call: str, transform: str | Part | Sequence[str | Part] | None = None) -> dict[str, Any]:
    """The answer of another call of the session, whether it is there yet or not."""
    return _reference("call", call, transform)


def variable(name: str, transform: str | Part | Sequence[str | Part] | None = None) -> dict[str, Any]:
    """A variable of the session."""
    return _reference("variable", name, transform)


def _reference(kind: str, name: str, transform: object) -> dict[str, Any]:
    part = {"type": "parrot:ref", kind: name}
    return part if transform is None else {**part, "transform": transform}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One message, and where its values stand in it."""

    message: dict[str, Any]
    inputs: tuple[dict[str, Any], ...] = ()
    """Places of the values that are there, without the number of the message."""


def prompt(template: str, /, *, role: str = "user", **values: str | float | Part) -> Prompt:
    """`{name}` stands for a value, `{{` for a brace. A value is a text, a number, or a reference (`ref`, `variable`).
    Errors: `ValueError` where names and values do not agree, or a value is none of these."""
    parts: list[str | Part] = []
    places: list[tuple[str, int]] = []
    used: set[str] = set()
    for text, name, form, conversion in string.Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"{name!r} in the template is no plain name: values are copied as they are")
        if name not in values:
            raise ValueError(f"no value for {name!r}")
        used.add(name)
        places.append((name, len(parts)))
        parts.append(_part(name, values[name]))
    if unknown := set(values) - used:
        raise ValueError(f"the template has no {', '.join(sorted(unknown))}")
    if all(isinstance(part, str) for part in parts):
        begins = [sum(len(part) for part in parts[:index]) for index in range(len(parts))]
        inputs = tuple(
            {"name": name, "start": begins[index], "end": begins[index] + len(parts[index])} for name, index in places
        )
        return Prompt({"role": role, "content": "".join(str(part) for part in parts)}, inputs)
    # A part of its own for every value, so that each says which it is.
    kept = [(index, part) for index, part in enumerate(parts) if part != ""]
    content = [{"type": "text", "text": part} if isinstance(part, str) else dict(part) for _, part in kept]
    position = {index: number for number, (index, _) in enumerate(kept)}
    inputs = tuple(
        {"name": name, "part": position[index], "start": 0, "end": len(parts[index])}
        for name, index in places
        if isinstance(parts[index], str) and index in position
    )
    return Prompt({"role": role, "content": content}, inputs)


def _part(name: str, value: Any) -> str | Part:
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str | Mapping):
        raise ValueError(f"the value of {name!r} is neither a text, a number nor a reference: {type(value).__name__}")
    return value


def said(
    *prompts: Prompt | Mapping[str, Any],
    session: str | None = None,
    call: str | None = None,
    function: str | None = None,
    objective: Objective | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`messages` and `extra_body` of `create`. `session` is one run of the app; `call` names this call in it, for
    `ref`; `function` is the same for calls of one kind; what is not said is deduced. Messages as the SDK takes them
    may stand among the prompts."""
    messages = [item.message if isinstance(item, Prompt) else dict(item) for item in prompts]
    inputs = [
        {**place, "message": number}
        for number, item in enumerate(prompts)
        if isinstance(item, Prompt)
        for place in item.inputs
    ]
    told = {"session": session, "call": call, "function": function, "objective": objective, "inputs": inputs or None}
    parrot = {"v": 1, **{name: value for name, value in told.items() if value is not None}}
    return {"messages": messages, "extra_body": {**(extra_body or {}), "parrot": parrot}}


class Graph:
    """Calls that go to the server together and run there as their inputs come, while the app does something else."""

    def __init__(self, session: str | None = None, *, ttl_s: float = 600.0) -> None:
        """`ttl_s`: how long the server keeps it, in seconds, while none of its calls can run (they wait for a text that
        the app still has to write, or all of them are over). Waiting for an answer does not prolong that."""
        self._body: dict[str, Any] = {"calls": [], "ttl_s": ttl_s}
        if session is not None:
            self._body["session"] = session

    def call(
        self, id: str, *prompts: Prompt | Mapping[str, Any], function: str | None = None, **request: Any
    ) -> dict[str, Any]:
        """Add a call; `request` is what `create` takes besides the messages. Returns the reference to its answer."""
        extra = request.pop("extra_body", None) or {}
        told = said(*prompts)
        body = {"messages": told["messages"], **request, **extra}
        if inputs := told["extra_body"]["parrot"].get("inputs"):
            body["parrot"] = {"v": 1, **(body.get("parrot") or {}), "inputs": inputs}
        added = {"id": id, "request": body}
        self._body["calls"].append(added if function is None else {**added, "function": function})
        return ref(id)

    def submit(self, client: openai.OpenAI, wanted: Sequence[str] = ()) -> Submitted:
        """Hand it over; does not wait for any answer. `wanted`: the calls whose answers the app itself wants.
        Errors: the SDK's."""
        made: Any = client.post("/parrot/graphs", cast_to=object, body=self._sent(wanted))
        return Submitted(client, made)

    async def asubmit(self, client: openai.AsyncOpenAI, wanted: Sequence[str] = ()) -> AsyncSubmitted:
        made: Any = await client.post("/parrot/graphs", cast_to=object, body=self._sent(wanted))
        return AsyncSubmitted(client, made)

    def _sent(self, wanted: Sequence[str]) -> dict[str, Any]:
        """The SDK sends again what had no answer: the server must know that it is the same. In a session it does."""
        once = {} if "session" in self._body else {"nonce": uuid.uuid4().hex}
        return {**self._body, **once, "await": list(wanted)}


class _Accepted:
    def __init__(self, made: Mapping[str, Any]) -> None:
        self.id = str(made["id"])
        self.session = str(made["session"])
        # the id that was drawn leads there too, and has nothing in it that a path cannot hold
        room = quote(str(made.get("session_id", self.session)), safe="")
        self._paths = {
            call["id"]: f"/parrot/sessions/{room}/variables/{quote(call['variable'], safe='')}"
            for call in made["calls"]
        }

    def _path(self, call: str) -> str:
        if call not in self._paths:
            raise ValueError(f"there is no call {call!r} in this graph")
        return self._paths[call]


def _text_of(found: Mapping[str, Any]) -> str | None:
    """`None`: not yet. Errors: `openai.APIError` with what the call failed with."""
    if found["state"] == "failed":
        error = found["error"]
        # the request that failed is the call's, which nobody but the server has made
        raise openai.APIError(error["message"], None, body=error)  # type: ignore[arg-type]
    return str(found["text"]) if found["state"] == "ready" else None


@contextmanager
def _ended_already() -> Iterator[None]:
    """A graph ends by itself after a while, and is forgotten: then there is nothing left to close."""
    try:
        yield
    except openai.NotFoundError as error:
        if error.code != "plan_not_found":
            raise


def _waiting(client: openai.OpenAI | openai.AsyncOpenAI) -> Any:
    """Options of a request that the server answers when there is a text, or in time for the client's patience."""
    silence_s = client.timeout.read if isinstance(client.timeout, openai.Timeout) else client.timeout
    return {"params": {"wait": min(WAIT_S, silence_s / 2) if silence_s else WAIT_S}}


class Submitted(_Accepted):
    """A graph on the server."""

    def __init__(self, client: openai.OpenAI, made: Mapping[str, Any]) -> None:
        super().__init__(made)
        self._client = client

    def text(self, call: str) -> str:
        """Wait for the answer of a call. Errors: the SDK's; `openai.APIError` with what the call failed with."""
        path = self._path(call)
        while True:
            found: Any = self._client.get(path, cast_to=object, options=_waiting(self._client))
            if (text := _text_of(found)) is not None:
                return text

    def close(self) -> None:
        """Nothing more is wanted: what still runs is cancelled. Does nothing where it has ended by itself. Errors: the
        SDK's."""
        with _ended_already():
            self._client.post(f"/parrot/graphs/{self.id}/close", cast_to=object, body={"taken": []})


class AsyncSubmitted(_Accepted):
    """As `Submitted`, for an asynchronous client."""

    def __init__(self, client: openai.AsyncOpenAI, made: Mapping[str, Any]) -> None:
        super().__init__(made)
        self._client = client

    async def text(self, call: str) -> str:
        path = self._path(call)
        while True:
            found: Any = await self._client.get(path, cast_to=object, options=_waiting(self._client))
            if (text := _text_of(found)) is not None:
                return text

    async def close(self) -> None:
        with _ended_already():
            await self._client.post(f"/parrot/graphs/{self.id}/close", cast_to=object, body={"taken": []})
