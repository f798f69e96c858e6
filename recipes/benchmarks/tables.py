"""Tables of results: on the terminal, as Markdown beside the results, and their means in README between its markers.

They know rows and how to show them. The geometric mean caps each ratio at 4, and a workload counts once: the mean over
its rows.

The invariant: nothing is left out because it looks bad.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from .results import MAIN, Row
from .workloads import WORKLOADS

__all__ = ["MARKER", "Case", "cases", "geometric_mean", "markdown", "means", "table", "write_readme"]

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
    return f"{row.p50:.3g} ({row.min:.3g}){_ratio(found)}"


def _ratio(found: Mapping[str, Row]) -> str:
    """With its spread, where rounds differ."""
    if "speedup" not in found:
        return ""
    row = found["speedup"]
    low, high = f"{row.p20:.2f}", f"{row.p80:.2f}"
    return f" {row.p50:.2f}x" + (f" ({low}-{high})" if low != high else "")


def _percent(found: Mapping[str, Row]) -> str:
    return f"{found['identical_answers'].p50:.1%}" if "identical_answers" in found else "-"


def geometric_mean(
    rows: Iterable[Row],
    lane: str,
    rtt_ms: float | None = None,
    metric: str = "speedup",
    workloads: Collection[str] | None = None,
) -> float | None:
    """Of a lane's ratios, each capped; `None` where there are none."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if workloads is not None and row.workload not in workloads:
            continue
        if row.system == lane and row.metric == metric and rtt_ms in (None, row.rtt_ms):
            ratios[row.workload].append(math.log(min(MOST_RATIO, row.p50)))
    if not ratios:
        return None
    return math.exp(sum(sum(logs) / len(logs) for logs in ratios.values()) / len(ratios))


# ---- Markdown ----------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    """One table for each model and scale, however many the calls; below each its means, and where, when and with what
    it was measured."""
    parts = []
    for what, chosen in _scales(rows):
        parts.append(_markdown_table(chosen, [lane for lane in lanes if any(row.system == lane for row in chosen)]))
        parts.append(
            f"{what}; mean completion of an app in s, median (least) of the rounds. Behind it, how many times as fast "
            f"as {lanes[0]}: the median of what each round gives (and its 20th to 80th percentile), which is not the "
            "quotient of the two medians. "
            "Caches begin empty in every lane: the text of each round is fresh from its first token on. "
        )
        parts += [_markdown_means(chosen, lanes), _origins(chosen)]
    return "\n\n".join(part.rstrip() for part in parts if part)


def means(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    """What README shows: the means alone, for each model and scale, and where they come from."""
    parts = [f"{what}:\n\n{_markdown_means(chosen, lanes)}\n\n{_origins(chosen)}" for what, chosen in _scales(rows)]
    return "\n\n".join(parts)


def _scales(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """What was run, in words, and its rows."""
    for model, scale in sorted({(row.model, _scale(row)) for row in rows}):
        tokens, *more = scale
        chosen = [row for row in rows if (row.model, _scale(row)) == (model, scale)]
        yield ", ".join([model, f"{tokens} of the paper's tokens", *more]), chosen


def _origins(rows: Sequence[Row]) -> str:
    hardware, versions = sorted({row.hardware for row in rows}), sorted({row.versions for row in rows})
    when = sorted({f"{row.commit} ({row.date})" for row in rows})
    return f"{'; '.join(hardware)} (cores x processor). {'; '.join(versions)}. Commit {', '.join(when)}."


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
    """Each line is of the same workloads at all of its distances: first of all, then of those that were run at more."""
    ratios = [row for row in rows if row.metric.startswith("speedup")]
    distances = sorted({row.rtt_ms for row in ratios})
    at = {rtt_ms: frozenset(row.workload for row in ratios if row.rtt_ms == rtt_ms) for rtt_ms in distances}
    lines = []
    for workloads in sorted(set(at.values()), key=len, reverse=True):
        for lane, other in [(lane, other) for place, lane in enumerate(lanes) for other in ("", *lanes[1:place])]:
            metric = f"speedup_over_{other}" if other else "speedup"
            shared = [rtt_ms if workloads <= at[rtt_ms] else None for rtt_ms in distances]
            found = [
                None if rtt_ms is None else geometric_mean(ratios, lane, rtt_ms, metric, workloads) for rtt_ms in shared
            ]
            if any(mean is not None for mean in found):
                cells = ["-" if mean is None else f"{mean:.2f}x" for mean in found]
                lines.append(f"| {_named(workloads)} | {lane} over {other or lanes[0]} | {' | '.join(cells)} |")
    if not lines:
        return ""
    head = [f"geometric mean, each ratio capped at {MOST_RATIO:g}", "", *(f"{rtt_ms:g} ms" for rtt_ms in distances)]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def _named(workloads: Collection[str]) -> str:
    return f"{len(workloads)} workloads" if len(workloads) > 5 else ", ".join(sorted(workloads)).upper()


def write_readme(path: Path, text: str, marker: str = MARKER) -> bool:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->`. False where the markers are not there."""
    opening, closing = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, found, rest = path.read_text("utf-8").partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        return False
    path.write_text(f"{before}{opening}\n{text}\n{closing}{after}", "utf-8")
    return True
