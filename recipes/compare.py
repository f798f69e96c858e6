"""Three apps, run with the planner off and on, by turns, against a server that is 50 ms away.

    python recipes/compare.py
    python recipes/compare.py FILE --limit 10 --rtt-ms 240

The apps are those of `chain_summary.py`, `map_reduce.py` and `orders.py`, unchanged. What is compared is time and,
call by call, the answers. Those of the first two are cut short, so that the way to the server is seen beside the work;
at the end the text is summarised once more, with room for whole sentences. Before the runs that count each app runs
once with the planner off and once with it on, so that the text is in the server's cache, and the connections are open,
for both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from call_log import CallLog, printable, show_answer
from chain_summary import refine
from langchain_core.runnables import Runnable
from map_reduce import map_reduce
from orders import answering, drawn, notes
from orders import show as show_orders
from plan_view import Plans, watch_plans
from reading import cut, read_text, show_parts
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from serving import add_server_options, at_least_one, far_away, server

from parrot_compat.integrations.langchain import ChatParrot, planning

TOPICS = ("exceptions", "context-managers")
FORM_TOKENS = 64


@dataclass(frozen=True, slots=True)
class App:
    name: str
    about: str
    chain: Runnable[Any, Any]
    input: Any
    calls: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an app."""

    seconds: float
    answer: Any
    log: CallLog
    plans: Plans

    @property
    def answers(self) -> Counter[tuple[str, str]]:
        return Counter((call.prompt, call.text) for call in self.log.calls.values())


@dataclass(frozen=True, slots=True)
class Compared:
    app: App
    off: Sequence[Run]
    on: Sequence[Run]

    @property
    def ratio(self) -> float:
        off, on = (statistics.median(run.seconds for run in runs) for runs in (self.off, self.on))
        return off / on

    def differences(self) -> list[tuple[str, str]]:
        """(prompt, answer) of calls that some run has made and another has not, or not with this answer."""
        some, all_ = Counter[tuple[str, str]](), self.off[0].answers
        for run in (*self.off, *self.on):
            some |= run.answers
            all_ &= run.answers
        return sorted(some - all_)


def apps(llm: ChatParrot, parts: list[str], facts: list[dict[str, str]]) -> list[App]:
    many = len(parts)
    patient = llm.model_copy(update={"max_tokens": FORM_TOKENS})
    return [
        App("chain", "every call reads one more part, and the summary so far", refine(llm, parts), {}, many),
        App(
            "map-reduce",
            "a summary of each part, then one of all summaries",
            map_reduce(llm),
            [{"part": part} for part in parts],
            many + 1,
        ),
        App(
            "orders",
            "a form from each note, and an answer that reads the form",
            answering(patient),
            notes(facts),
            2 * len(facts),
        ),
    ]


def run(app: App, console: Console, *, planner: bool) -> Run:
    log = CallLog(total=app.calls, console=console)
    with planning(planner), watch_plans() as plans:
        began = time.perf_counter()
        answer = app.chain.invoke(app.input, {"callbacks": [log]})
        return Run(time.perf_counter() - began, answer, log, plans)


def compare(app: App, rounds: int, console: Console, done: Callable[[], None]) -> Compared:
    def runs() -> Iterator[tuple[Run, Run]]:
        for _ in range(1 + rounds):
            off = run(app, console, planner=False)
            done()
            on = run(app, console, planner=True)
            done()
            yield off, on

    _, *counted = runs()
    return Compared(app, [off for off, _ in counted], [on for _, on in counted])


# ---- what is shown -------------------------------------------------------------------------------------


def show(console: Console, compared: Compared) -> None:
    last = compared.on[-1]
    console.print(f"\n[bold]{compared.app.name}[/bold]: {compared.app.about}\n", highlight=False)
    last.plans.show(console, last.log)
    console.print(times(compared))
    if differences := compared.differences():
        console.print("These calls and answers are not in all runs:", style="red")
        for prompt, answer in differences:
            console.print(printable(f"  …{prompt[-30:]!r}: {answer!r}"), markup=False, highlight=False)
        return
    runs = len(compared.off) + len(compared.on)
    console.print(
        f"{compared.ratio:.1f} times as fast; all {compared.app.calls} answers are equal in all {runs} runs.",
        style="green" if compared.ratio > 1 else None,
        highlight=False,
    )


def times(compared: Compared) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("planner")
    for number in range(len(compared.off)):
        table.add_column(f"round {number + 1}", justify="right")
    table.add_column("how the answers came")
    for name, runs in (("off", compared.off), ("on", compared.on)):
        table.add_row(name, *(f"{run.seconds:.2f} s" for run in runs), came(runs[-1]))
    return table


def came(run: Run) -> str:
    sources = run.plans.sources
    count = Counter(sources.get(call, "direct") for call in run.log.calls)
    said = ", ".join(f"{count[source]} {source}" for source in ("pushed", "claimed", "direct") if count[source])
    plans = f"{len(run.plans.records)} plan: " if run.plans.records else ""
    waste = f", {run.plans.not_taken} in vain" if run.plans.not_taken else ""
    return plans + said + waste


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Three apps with the planner off and on.")
    parser.add_argument("file", nargs="?", help="a text file; not given: chapters of Python's reference")
    parser.add_argument("--topics", nargs="+", default=TOPICS, metavar="NAME", help="which chapters")
    parser.add_argument("--part-tokens", type=at_least_one, default=200, help="tokens of each part")
    parser.add_argument("--max-tokens", type=at_least_one, default=12, help="tokens of each answer")
    parser.add_argument(
        "--summary-tokens", type=at_least_one, default=96, help="tokens of each answer of the last summary"
    )
    parser.add_argument("--limit", type=at_least_one, default=6, help="compare on this many parts (6)")
    parser.add_argument("--notes", type=at_least_one, default=4, help="compare on this many notes on orders (4)")
    parser.add_argument("--rtt-ms", type=float, default=50.0, help="round trip to the server (50)")
    parser.add_argument("--rounds", type=at_least_one, default=2, help="rounds that count (2)")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    text = read_text(options.file, options.topics)

    with server(options.base_url, options.model) as near, far_away(near, options.rtt_ms) as far:
        settings = {"model": options.model, "max_tokens": options.max_tokens, "temperature": 0}
        with console.status("cutting the text into parts"):
            parts = cut(text, ChatParrot(base_url=near, **settings), options.part_tokens)
        show_parts(console, text, parts, options.limit)
        console.print(f"server  {options.rtt_ms:g} ms away, through a proxy", style="dim", highlight=False)
        facts = drawn(options.notes)
        compared_apps = apps(ChatParrot(base_url=far, **settings), parts[: options.limit], facts)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("runs", total=2 * len(compared_apps) * (1 + options.rounds))
            compared = [compare(app, options.rounds, console, lambda: progress.advance(bar)) for app in compared_apps]
        for one in compared:
            show(console, one)
        show_orders(console, facts, compared[-1].on[-1].answer)
        whole_text = parts if options.file is not None else parts[: options.limit]
        near_by = ChatParrot(base_url=near, **{**settings, "max_tokens": options.summary_tokens})
        summary, log = whole(near_by, whole_text, console)

    console.print()
    show_answer(console, "summary", summary)
    log.say_if_random()
    return 0 if not any(one.differences() for one in compared) else 1


def whole(llm: ChatParrot, parts: list[str], console: Console) -> tuple[str, CallLog]:
    """The summary of all parts, by map-reduce, from near by: what the answers are when nobody counts seconds."""
    log = CallLog(total=len(parts) + 1, console=console)
    with log.progress:
        answer = map_reduce(llm).invoke([{"part": part} for part in parts], {"callbacks": [log]})
    return answer, log


if __name__ == "__main__":
    raise SystemExit(main())
