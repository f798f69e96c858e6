"""What LangChain tells about every call of an app, as a progress bar while it runs and a table afterwards.

All times are the client's: `started` is when the first text of the answer arrived. `cached` are prompt tokens
that the server did not have to compute again, from the answer's own usage. `answer` says how the planner came by it:
pushed (it was here before it was asked for, or needed no request), claimed, or direct (an ordinary request).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from drawing import numbered
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


@dataclass
class LoggedCall:
    name: str
    submitted: float
    started: float | None = None
    finished: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    prompt: str = ""
    text: str = ""
    error: str = ""


class CallLog(BaseCallbackHandler):
    """A LangChain callback handler: `chain.invoke(…, {"callbacks": [log]})`. Calls are named after their
    `run_name`, or their model's `name`."""

    def __init__(self, total: int, console: Console) -> None:
        self.calls: dict[UUID, LoggedCall] = {}
        self._lock = threading.Lock()  # the calls of a map report from threads of their own
        self._console = console
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=console, transient=True)
        self._bar = self.progress.add_task("calls", total=total)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, name: str | None = None, **kwargs: Any
    ) -> None:
        prompt = "\n\n".join(f"{message.type}: {message.text}" for message in messages[0])
        with self._lock:
            self.calls[run_id] = LoggedCall(name or _name_of(serialized) or "call", time.perf_counter(), prompt=prompt)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self.calls[run_id]
        if token and call.started is None:
            call.started = time.perf_counter()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        call = self.calls[run_id]
        call.finished = time.perf_counter()
        generation = response.generations[0][0]
        call.text = generation.text
        if isinstance(generation, ChatGeneration):
            call.usage = dict(getattr(generation.message, "usage_metadata", None) or {})
            call.model = generation.message.response_metadata.get("model_name", "")
        self.progress.advance(self._bar)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.calls[run_id].error = str(error)

    @property
    def in_order(self) -> dict[UUID, LoggedCall]:
        """As they were submitted."""
        return dict(sorted(self.calls.items(), key=lambda item: item[1].submitted))

    def table(self, sources: Mapping[UUID, str] | None = None) -> Table:
        """`sources` says of each run how its answer came; not given: no such column."""
        calls = self.in_order
        began = min((call.submitted for call in calls.values()), default=0.0)

        def seconds(moment: float | None) -> str:
            return "-" if moment is None else f"{moment - began:.2f}"

        many = "1 call" if len(calls) == 1 else f"{len(calls)} calls"
        table = Table(
            title=many, caption="seconds since the first was submitted; tokens", box=box.SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("call", no_wrap=True)
        if sources is not None:
            table.add_column("answer", no_wrap=True)
        is_streamed = any(call.started is not None for call in calls.values())
        times = ("submitted", "started", "finished") if is_streamed else ("submitted", "finished")
        for title in (*times, "prompt", "cached", "output"):
            table.add_column(title, justify="right", no_wrap=True)
        labels = numbered({str(run): call.name for run, call in calls.items()})
        for run, call in calls.items():
            details = call.usage.get("input_token_details") or {}
            counts = call.usage.get("input_tokens"), details.get("cache_read"), call.usage.get("output_tokens")
            moments = (seconds(getattr(call, moment)) for moment in times)
            shown = ("-" if count is None else f"{count:,}" for count in counts)
            source = () if sources is None else (sources.get(run, "direct"),)
            table.add_row(labels[str(run)], *source, *moments, *shown, style="red" if call.error else None)
        return table

    def say_if_random(self) -> None:
        random_weights(self._console, {call.model for call in self.calls.values()})


def _name_of(model: Mapping[str, Any]) -> str | None:
    """That it was given; the name of its class is none."""
    name, *_, kind = model.get("name"), *model.get("id", ())
    return name if name != kind else None


def random_weights(console: Console, models: Collection[str]) -> None:
    """What a reader should know of the model whose answers these are, if it is one of ours."""
    for model, words in _OURS.items():
        if model in models:
            console.print(f"{model} {words}; --model serves one that knows more.", style="yellow", highlight=False)


_OURS = {
    "builtin:tiny": "is a model of 7.5 M parameters that quotes and edits",
    "builtin:random": "has random weights: what it says makes no sense",
}


def show_answer(console: Console, title: str, text: str) -> None:
    console.print(Panel(Text(printable(text)), title=title, title_align="left"))


def printable(text: str) -> str:
    """A model may say anything, terminal control characters too."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
