"""A picture of the round trips: every app's time at each distance, planner off and on.

It draws what is in `round_trips.csv` and nothing else. matplotlib is an optional dependency (the extra `bench`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from .measured import read

__all__ = ["draw"]

matplotlib.rcParams["svg.hashsalt"] = "parrot"  # the same numbers are the same file
matplotlib.rcParams["font.size"] = 8

PLACE = re.compile(r"(?P<app>.+) of \d+ calls, (?P<rtt>[\d.]+) ms round trip, (?P<engine>.+) engine")
LANES = ("planner off", "planner on")


def draw(table: Path, folder: Path) -> list[Path]:
    """One SVG for each engine: a row of bars for each distance; the line on each bar from the 20th to the 80th
    percentile."""
    times: dict[str, dict[float, dict[tuple[str, str], Sequence[float]]]] = {}
    for row in read(table):
        place = PLACE.fullmatch(row["workload"])
        if place is None or row["metric"] != "completion":
            continue
        at = times.setdefault(place["engine"], {}).setdefault(float(place["rtt"]), {})
        at[place["app"], row["system"]] = [float(row[name]) for name in ("p50", "p20", "p80")]
    paths = []
    for engine, distances in times.items():
        figure, axes = pyplot.subplots(len(distances), 1, figsize=(7, 2.2 * len(distances)), squeeze=False)
        for (axis,), (rtt_ms, found) in zip(axes, sorted(distances.items()), strict=True):
            apps = list(dict.fromkeys(app for app, _ in found))
            for number, lane in enumerate(LANES):
                bars = [found[app, lane] for app in apps]
                low = [max(0.0, median - least) for median, least, _ in bars]
                high = [max(0.0, most - median) for median, _, most in bars]
                places = [index + 0.4 * number for index in range(len(apps))]
                axis.bar(
                    places, [bar[0] for bar in bars], 0.4, yerr=[low, high], label=lane, error_kw={"linewidth": 0.7}
                )
            axis.set_xticks([index + 0.2 for index in range(len(apps))], [fill(app, 12) for app in apps])
            axis.set_title(f"{rtt_ms:g} ms round trip, {engine} engine", loc="left")
            axis.set_ylabel("s")
        axes[0][0].legend()
        figure.tight_layout()
        path = folder / f"round_trips-{engine.replace(':', '-')}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        paths.append(path)
    return paths
