"""Pictures of a run: completion per workload, the distribution of app completion, and one run of each lane in time.

They know rows and cells; matplotlib is an optional dependency (the extra `bench`), imported here alone.

The invariant: every picture is drawn from what is in the run, and says in which run it was measured.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from .cells import Cell, Place
from .results import MAIN, Row

__all__ = ["draw"]

matplotlib.rcParams["svg.hashsalt"] = "parrot"  # the same numbers are the same file
matplotlib.rcParams["font.size"] = 8


def draw(cells: Sequence[Cell], rows: Sequence[Row], lanes: Sequence[str], folder: Path) -> list[Path]:
    """SVG files, by name of the picture, model and scale. `cells` are those of the rounds that count."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens, _, *unusual = rows[0].scale.split(", ")
    words = [Path(rows[0].model).name, tokens.split()[1], *unusual]
    stem = re.sub(r"[^\w.]+", "-", "-".join(words))
    pictures = {
        f"completion-{stem}.svg": _completion(rows, lanes),
        f"distribution-{stem}.svg": _distribution(cells, lanes),
    }
    for workload in sorted({cell.place.workload for cell in cells}):
        pictures[f"timeline-{workload}-{stem}.svg"] = _timeline(cells, lanes, workload)
    paths = []
    for name, figure in pictures.items():
        figure.tight_layout()
        figure.savefig(folder / name, metadata={"Date": None})
        pyplot.close(figure)
        paths.append(folder / name)
    return paths


def _completion(rows: Sequence[Row], lanes: Sequence[str]) -> Figure:
    """Bars by workload and distance; the line on each goes from the 20th to the 80th percentile."""
    chosen = [row for row in rows if row.metric == MAIN]
    cases = sorted({(row.workload, row.variant, row.load, row.rtt_ms) for row in chosen})
    figure, axes = pyplot.subplots(figsize=(max(4.0, 0.7 * len(cases) + 1), 4))
    width = 0.8 / len(lanes)
    for place, lane in enumerate(lanes):
        found = {(row.workload, row.variant, row.load, row.rtt_ms): row for row in chosen if row.system == lane}
        at = [index + place * width for index, case in enumerate(cases) if case in found]
        bars = [found[case] for case in cases if case in found]
        spread = [[row.p50 - row.p20 for row in bars], [row.p80 - row.p50 for row in bars]]
        axes.bar(at, [row.p50 for row in bars], width, yerr=spread, label=lane, error_kw={"elinewidth": 0.7})
    labels = [f"{w}\n{f'load {load}, ' if load else ''}{rtt:g} ms" for w, _, load, rtt in cases]
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(cases))], labels)
    axes.set(ylabel="mean completion of an app, s", yscale="log", title=_where(rows))
    axes.legend()
    return figure


def _distribution(cells: Sequence[Cell], lanes: Sequence[str]) -> Figure:
    """Share of apps that were done after so long, over all rounds; one panel for each row."""
    places = {cell.place.row: cell.place for cell in cells}
    shown = sorted(places.values(), key=lambda place: (place.workload, place.variant, place.load or 0.0, place.rtt_ms))
    figure, grid = pyplot.subplots(len(shown), 1, figsize=(5, 2.2 * len(shown)), squeeze=False)
    for axes, place in zip(grid[:, 0], shown, strict=True):
        chosen = [cell for cell in cells if cell.place.row == place.row]
        for lane in lanes:
            apps = [app for cell in chosen if cell.place.lane == lane for app in cell.foreground]
            done = sorted(app.completion_s for app in apps if app.finished is not None)
            axes.step(done, [(index + 1) / len(done) for index in range(len(done))], where="post", label=lane)
        axes.set(title=_title(place), xlabel="completion of an app, s", ylabel="share", ylim=(0, 1.02))
        axes.legend()
    return figure


def _title(place: Place) -> str:
    load = "" if place.load is None else f"load {place.load:g}, "
    return f"{place.workload} {place.variant}, {load}{place.rtt_ms:g} ms"


def _timeline(cells: Sequence[Cell], lanes: Sequence[str], workload: str) -> Figure:
    """Every call of one round, one panel for each lane: from asked (pale) over first text to done."""
    rounds: dict[object, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        if cell.place.workload == workload and not cell.errors:
            rounds[cell.place.row, cell.place.round][cell.place.lane] = cell
    whole = [found for found in rounds.values() if set(found) >= set(lanes)]
    figure, grid = pyplot.subplots(len(lanes), 1, figsize=(8, 1.8 * len(lanes)), sharex=True, squeeze=False)
    for axes, lane in zip(grid[:, 0], lanes, strict=True):
        shown = whole[-1][lane] if whole else None
        calls = sorted(shown.calls, key=lambda call: call.submitted) if shown else []
        for height, call in enumerate(calls):
            if call.finished is None:
                continue
            begun = call.first if call.first is not None else call.submitted
            axes.plot([call.submitted, call.finished], [height, height], color="C0", alpha=0.4, linewidth=1.2)
            axes.plot([begun, call.finished], [height, height], color="C1" if call.first else "C0", linewidth=1.2)
        title = f"{lane}: {_title(shown.place)}" if shown else lane
        axes.set(title=title, ylabel="call", xlabel="s" if lane == lanes[-1] else "")
    return figure


def _where(rows: Sequence[Row]) -> str:
    row = rows[0]
    commits, dates = (_each_once(getattr(row, name) for row in rows) for name in ("commit", "date"))
    return f"{row.model}, {row.scale} · {row.hardware} · {commits}, {dates}"


def _each_once(said: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(" ".join(said).split()))
