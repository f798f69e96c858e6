"""What LangChain tells about every call of an app, as a progress bar while it runs and a table afterwards.

All times are the client's: `started` is when the first text of the answer arrived. `cached` are prompt tokens
that the server did not have to compute again, from the answer's own usage.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass
class LoggedCall:
    name: str
    submitted: float
    started: float | None = None
    finished: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    error: str = ""


class CallLog(BaseCallbackHandler):
    """A LangChain callback handler: `chain.invoke(…, {"callbacks": [log]})`. Calls are named after their `run_name`."""

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
        with self._lock:
            self.calls[run_id] = LoggedCall(name or "call", time.perf_counter())

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self.calls[run_id]
        if token and call.started is None:
            call.started = time.perf_counter()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        call = self.calls[run_id]
        call.finished = time.perf_counter()
        generation = response.generations[0][0]
        if isinstance(generation, ChatGeneration):
            call.usage = dict(getattr(generation.message, "usage_metadata", None) or {})
            call.model = generation.message.response_metadata.get("model_name", "")
        self.progress.advance(self._bar)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.calls[run_id].error = str(error)

    def table(self) -> Table:
        calls = sorted(self.calls.values(), key=lambda call: call.submitted)
        began = calls[0].submitted if calls else 0.0

        def seconds(moment: float | None) -> str:
            return "-" if moment is None else f"{moment - began:.2f}"

        count = Counter(call.name for call in calls)
        numbers: Counter[str] = Counter()
        table = Table(title=f"{len(calls)} calls", caption="seconds since the first was submitted; tokens")
        table.add_column("call", no_wrap=True)
        for title in ("submitted", "started", "finished", "prompt", "cached", "output"):
            table.add_column(title, justify="right", no_wrap=True)
        for call in calls:
            details = call.usage.get("input_token_details") or {}
            counts = call.usage.get("input_tokens"), details.get("cache_read"), call.usage.get("output_tokens")
            times = seconds(call.submitted), seconds(call.started), seconds(call.finished)
            shown = ("-" if count is None else f"{count:,}" for count in counts)
            numbers[call.name] += 1
            name = f"{call.name} {numbers[call.name]}" if count[call.name] > 1 else call.name
            table.add_row(name, *times, *shown, style="red" if call.error else None)
        return table

    def say_if_random(self) -> None:
        if any(call.model.startswith("builtin:") for call in self.calls.values()):
            self._console.print(
                "builtin:tiny has random weights for now, so its text makes no sense; --model serves a real one.",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )


def printable(text: str) -> str:
    """A model may say anything, terminal control characters too."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
