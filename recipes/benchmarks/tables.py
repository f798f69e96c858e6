"""Tables of results: on the terminal, and as Markdown in README between its markers.

They know rows and how to show them. The geometric mean caps each ratio at 4, and a workload counts once: the mean over
its rows.

The invariant: nothing is left out because it looks bad.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from .results import MAIN, Row
from .workloads import WORKLOADS

__all__ = ["MARKER", "Case", "cases", "geometric_mean", "markdown", "table", "write_readme"]

MARKER = "bench:suite"
MOST_RATIO = 4.0


@dataclass(frozen=True, order=True, slots=True)
class Case:
    """One line of a table."""

    workload: str
    variant: str
    load: str
    scale: str
    rtt_ms: float

    @property
    def title(self) -> str:
        known = WORKLOADS.get(self.workload)
        title = f"{self.workload.upper()} {known.title if known else ''}".strip()
        calls, _, more = self.scale.partition("calls ")[2].partition(", ")
        parts = [self.variant, f"load {self.load}" if self.load else ""]
        parts += [f"{calls} of the calls" if calls not in "1" else "", more]
        return f"{title} ({', '.join(part for part in parts if part)})"

    @property
    def short(self) -> str:
        return f"{self.workload} {self.variant}{f' at {self.load}' if self.load else ''}"


def cases(rows: Iterable[Row]) -> dict[Case, dict[str, dict[str, Row]]]:
    """Rows by case, system and metric, in the order of workload, load and distance."""
    found: dict[Case, dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[Case(row.workload, row.variant, row.load, row.scale, row.rtt_ms)][row.system][row.metric] = row
    return {case: found[case] for case in sorted(found)}


def table(rows: Sequence[Row], lanes: Sequence[str]) -> Table:
    shown = Table(title="app completion in s: median (least) of rounds, and how many times faster than the first lane")
    shown.add_column("workload", no_wrap=True)
    for title in ("RTT ms", "rounds"):
        shown.add_column(title, justify="right")
    for lane in lanes:
        shown.add_column(lane, justify="right", no_wrap=True)
    shown.add_column("identical", justify="right")
    for case, systems in cases(rows).items():
        cells = [_cell(systems.get(lane, {})) for lane in lanes]
        rounds = next((str(found[MAIN].rounds) for found in systems.values() if MAIN in found), "-")
        equal = ", ".join(f"{lane} {_percent(systems.get(lane, {}))}" for lane in lanes[1:])
        shown.add_row(case.short, f"{case.rtt_ms:g}", rounds, *cells, equal)
    for lane in lanes[1:]:
        mean = geometric_mean(rows, lane)
        if mean is not None:
            shown.caption = f"{shown.caption or ''} geometric mean of {lane}: {mean:.2f}x".strip()
    return shown


def _cell(found: Mapping[str, Row]) -> str:
    if MAIN not in found:
        return "-"
    row = found[MAIN]
    ratio = f" {found['speedup'].p50:.2f}x" if "speedup" in found else ""
    return f"{row.p50:.3g} ({row.min:.3g}){ratio}"


def _percent(found: Mapping[str, Row]) -> str:
    return f"{found['identical_answers'].p50:.1%}" if "identical_answers" in found else "-"


def geometric_mean(
    rows: Iterable[Row], lane: str, rtt_ms: float | None = None, metric: str = "speedup"
) -> float | None:
    """Of a lane's ratios, each capped; `None` where there are none."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.system == lane and row.metric == metric and rtt_ms in (None, row.rtt_ms):
            ratios[row.workload].append(math.log(min(MOST_RATIO, row.p50)))
    if not ratios:
        return None
    return math.exp(sum(sum(logs) / len(logs) for logs in ratios.values()) / len(ratios))


# ---- README ------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    """One table for each model and scale, however many the calls; below each, where, when and with what it was
    measured."""
    parts = []
    for model, scale in sorted({(row.model, _scale(row)) for row in rows}):
        chosen = [row for row in rows if (row.model, _scale(row)) == (model, scale)]
        tokens, *more = scale
        what = ", ".join([model, f"{tokens} of the paper's tokens", *more])
        parts.append(_markdown_table(chosen, [lane for lane in lanes if any(row.system == lane for row in chosen)]))
        parts.append(_markdown_means(chosen, lanes))
        hardware, versions = sorted({row.hardware for row in chosen}), sorted({row.versions for row in chosen})
        when = sorted({f"{row.commit} ({row.date})" for row in chosen})
        parts.append(
            f"{what}; mean completion of an app in s, median (least) of the rounds. "
            "Caches begin empty in every lane: the text of each round is fresh from its first token on. "
            f"{'; '.join(hardware)}. {'; '.join(versions)}. Commit {', '.join(when)}."
        )
    return "\n\n".join(part for part in parts if part)


def _scale(row: Row) -> tuple[str, ...]:
    """Of tokens, and what else is not as usual."""
    tokens, _calls, *more = row.scale.split(", ")
    return tokens.removeprefix("tokens "), *more


def _markdown_table(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    head = ["workload", "RTT ms", *lanes, "identical answers"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for case, systems in cases(rows).items():
        cells = [_cell(systems.get(lane, {})) for lane in lanes]
        equal = ", ".join(f"{lane} {_percent(systems.get(lane, {}))}" for lane in lanes[1:])
        lines.append(f"| {case.title} | {case.rtt_ms:g} | {' | '.join(cells)} | {equal} |")
    return "\n".join(lines)


def _markdown_means(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    means = []
    for lane, other in [(lane, other) for at, lane in enumerate(lanes) for other in ("", *lanes[1:at])]:
        metric, over = ("speedup", "") if not other else (f"speedup_over_{other}", f" over {other}")
        for rtt_ms in sorted({row.rtt_ms for row in rows}):
            mean = geometric_mean(rows, lane, rtt_ms, metric)
            if mean is not None:
                means.append(f"{lane}{over} {mean:.2f}x at {rtt_ms:g} ms")
    return f"Geometric mean, each ratio capped at {MOST_RATIO:g}: {', '.join(means)}." if means else ""


def write_readme(path: Path, text: str, marker: str = MARKER) -> bool:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->`. False where the markers are not there."""
    opening, closing = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, found, rest = path.read_text("utf-8").partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        return False
    path.write_text(f"{before}{opening}\n{text}\n{closing}{after}", "utf-8")
    return True
