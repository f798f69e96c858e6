"""What a run says: metrics of each cell, their medians over rounds, and the CSV file that tables are made of.

It knows cells, nothing of how they were measured. Only whole rounds count: every lane there, nothing failed, and
the machine quiet.

The invariant: a number in the file can be computed again from `cells.jsonl`; one row for each workload, variant, load,
distance, model, scale (with tools, KV and server, where they are not the usual ones), system and metric, and a later
run of the same replaces it.
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .cells import BACKGROUND, AppRecord, Cell
from .equality import Equality, compare
from .phases import phases
from .plan import DEFAULTS

__all__ = [
    "MAIN",
    "RESULTS_FILE",
    "Row",
    "good_rounds",
    "merge",
    "metrics",
    "origin",
    "quantile",
    "read_rows",
    "spread",
    "summarise",
]

RESULTS_FILE = "suite.csv"
MAIN = "app_completion_mean"
"""What the ratio of two lanes is made of."""
RowKey = tuple[str, str, float | None, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    workload: str
    variant: str
    load: str
    rtt_ms: float
    model: str
    scale: str
    system: str
    metric: str
    unit: str
    p50: float
    p20: float
    p80: float
    min: float
    rounds: int
    hardware: str
    versions: str
    commit: str
    date: str

    @property
    def key(self) -> tuple[Any, ...]:
        measured = {"unit", "p50", "p20", "p80", "min", "rounds", "hardware", "versions", "commit", "date"}
        return tuple(str(getattr(self, item.name)) for item in fields(self) if item.name not in measured)


def quantile(values: Sequence[float], at: float) -> float:
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = at * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The columns of a row that say how the rounds came out."""
    percentiles = {f"p{percent}": round(quantile(values, percent / 100), 6) for percent in (50, 20, 80)}
    return percentiles | {"min": round(min(values), 6), "rounds": len(values)}


def origin(measured: Iterable[Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """The columns that say where, at which commits and on which days: of all cells or samples that count, each once, in
    the order in which they were measured. What one does not say itself is as the run's `facts` say."""
    every = list(measured)
    columns = ("hardware", "commit", "date")
    return {name: " ".join(dict.fromkeys(getattr(one, name) or facts[name] for one in every)) for name in columns}


# ---- one cell ----------------------------------------------------------------------------------------------


def metrics(cell: Cell) -> dict[str, tuple[float, str]]:
    """Value and unit of everything that one cell says."""
    found: dict[str, tuple[float, str]] = {}
    groups: dict[str, list[AppRecord]] = defaultdict(list)
    for app in cell.apps:
        if app.finished is not None:
            groups[app.group].append(app)
    for group, apps in groups.items():
        suffix = "" if group == "app" else f"/{group}"
        found |= {f"{name}{suffix}": value for name, value in _of_apps(apps).items()}
    if MAIN not in found:  # apps of several kinds: the mean over all that have to finish
        found |= _of_apps([app for name, apps in groups.items() if name != BACKGROUND for app in apps])
    found |= phases(cell)
    calls = [call for call in cell.calls if call.finished is not None]
    out = sum(call.output_tokens for call in calls)
    prompt, cached = sum(call.prompt_tokens for call in calls), sum(call.cached_tokens for call in calls)
    return found | {
        "makespan": (cell.makespan_s, "s"),
        "calls": (float(len(calls)), "calls"),
        "throughput": (out / cell.makespan_s, "output tokens/s"),
        "output_tokens": (float(out), "tokens"),
        "prompt_tokens": (float(prompt), "tokens"),
        "executed_tokens": (float(prompt - cached + out), "tokens"),
        "client_cpu": (cell.spent.client_s, "s"),
        "server_cpu": (cell.spent.servers_s, "s"),
        "foreign_cpu_share": (cell.spent.foreign_share, "share"),
    }


def _main(cell: Cell) -> float:
    return metrics(cell)[MAIN][0]


def _of_apps(apps: Sequence[AppRecord]) -> dict[str, tuple[float, str]]:
    completions = [app.completion_s for app in apps]
    found = {
        MAIN: (statistics.fmean(completions), "s"),
        "app_completion_p50": (quantile(completions, 0.5), "s"),
        "app_completion_p99": (quantile(completions, 0.99), "s"),
    }
    if any(app.waited_s for app in apps):
        model_times = [app.completion_s - app.waited_s for app in apps]
        found["app_model_time_mean"] = (statistics.fmean(model_times), "s")
    firsts = [app.first_text - app.started for app in apps if app.first_text is not None]
    if firsts:
        found |= {"first_text_p50": (quantile(firsts, 0.5), "s"), "first_text_p99": (quantile(firsts, 0.99), "s")}
    return found


# ---- rounds ------------------------------------------------------------------------------------------------


def good_rounds(
    cells: Iterable[Cell], lanes: Sequence[str], *, any_load: bool = False
) -> dict[RowKey, list[dict[str, Cell]]]:
    """Whole rounds by row, each a cell by lane. `any_load` keeps those in which others used the machine too."""
    rounds: dict[tuple[RowKey, int], dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        rounds[cell.place.row, cell.place.round][cell.place.lane] = cell
    good: dict[RowKey, list[dict[str, Cell]]] = defaultdict(list)
    for (row, _), found in rounds.items():
        is_whole = all(lane in found and not found[lane].errors for lane in lanes)
        if is_whole and (any_load or all(found[lane].spent.is_quiet for lane in lanes)):
            good[row].append(found)
    return good


def summarise(
    rounds: Mapping[RowKey, Sequence[Mapping[str, Cell]]], lanes: Sequence[str], facts: Mapping[str, Any]
) -> list[Row]:
    """Rows of everything. Lanes are compared with the first (`speedup`), and with each between it and them
    (`speedup_over_LANE`). `facts` are the run's."""
    rows: list[Row] = []
    for row, found in rounds.items():
        known = {**facts, **origin([cells[lane] for cells in found for lane in lanes], facts)}
        for lane in lanes:
            values: dict[str, list[tuple[float, str]]] = defaultdict(list)
            equality = Equality()
            for cells in found:
                for name, value in metrics(cells[lane]).items():
                    values[name].append(value)
                if lane != lanes[0]:
                    base, this = _main(cells[lanes[0]]), _main(cells[lane])
                    values["speedup"].append((base / this, "ratio"))
                    equality += compare(cells[lanes[0]], cells[lane])
                for other in lanes[1 : lanes.index(lane)]:
                    values[f"speedup_over_{other}"].append((_main(cells[other]) / _main(cells[lane]), "ratio"))
            if equality.calls:
                values["identical_answers"] = [(equality.share, "share")]
                values["compared_calls"] = [(float(equality.calls - equality.followers - equality.alone), "calls")]
                values["following_calls"] = [(float(equality.followers + equality.alone), "calls")]
            rows += [_row(row, lane, name, measured, len(found), known) for name, measured in values.items()]
    return rows


def _row(
    row: RowKey, lane: str, metric: str, measured: Sequence[tuple[float, str]], rounds: int, facts: Mapping[str, Any]
) -> Row:
    workload, variant, load, rtt_ms = row
    values = [value for value, _ in measured]
    asked = facts["asked"]
    return Row(
        workload=workload,
        variant=variant,
        load="" if load is None else f"{load:g}",
        rtt_ms=rtt_ms,
        model=f"{asked['model']}, recorded answers" if asked.get("replay") else asked["model"],
        scale=_scale(asked),
        system=lane,
        metric=metric,
        unit=measured[0][1],
        **spread(values) | {"rounds": rounds},
        hardware=facts["hardware"],
        versions=facts["versions"],
        commit=facts["commit"],
        date=facts["date"],
    )


def _scale(asked: Mapping[str, Any]) -> str:
    """What numbers hang on beside model and lanes. What is as it is by default is left out of it."""
    parts = [f"tokens {asked['scale']:g}", f"calls {asked['calls']:g}"]
    for name, said in {"tool_s": "tools {:g}", "kv_gib": "kv {:g} GiB", "against": "against {}"}.items():
        usual = getattr(DEFAULTS, name)
        value = asked.get(name, usual)
        parts += [said.format(value)] if value != usual else []
    return ", ".join(parts)


# ---- the file ----------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{item.name: _typed(item, line[item.name]) for item in fields(Row)}) for line in csv.DictReader(file)
        ]


def _typed(item: Any, text: str) -> Any:
    readers: Mapping[str, Any] = {"float": float, "int": int}
    return readers.get(str(item.type), str)(text)


def merge(rows: Sequence[Row], path: Path) -> None:
    """Into the file: what is there of other runs stays."""
    kept = {row.key: row for row in read_rows(path)} | {row.key: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [item.name for item in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(kept[key]) for key in sorted(kept))
