"""A run of the GPU suite on one screen: what the end of its output has room for, where all rows have not.

The invariant: at most `MOST_LINES` lines and `MOST_CHARACTERS` characters, whatever the rows; what is left out for that
is counted, and comes last: parts and failures are first.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .gpu_rows import GpuRow

__all__ = ["MOST_CHARACTERS", "MOST_LINES", "WALL_TIME", "summary"]

MOST_LINES, MOST_CHARACTERS = 60, 10_000
MOST_OF_A_LINE, MOST_OF_A_NOTE = 220, 160
WALL_TIME = "wall time"
"""The metric of the row that each part has."""
PARTS = ("exactness", "identity", "engine", "vllm", "kernels")
"""What is still to be shown first comes first; attention alone is the longest."""
SHOWN = {
    "engine": ("rate", "share of products", "share of products, attention included", "output rate", "speedup",
               "time of a step", "prefixes read together", "texts changed by neighbours", "texts changed by graphs"),
    "identity": ("answers", "exact", "that part at a tie", "differences"),
    "kernels": ("speedup", "share of products", "copy or read", "matrix product"),
}  # fmt: skip
"""Of parts that have more metrics than room; the rest is in the file."""


def summary(rows: Sequence[GpuRow]) -> str:
    """Medians. `#` in a case is the number that stands before each of them."""
    lines = [_cut(line) for line in (*_head(rows), *_parts(rows), *_failures(rows), *_exactness(rows), *_pivot(rows))]
    # A line of its own says how many there was no room for.
    room, kept = MOST_CHARACTERS - MOST_OF_A_LINE, 0
    for line in lines[: MOST_LINES - 1]:
        room -= len(line) + 1
        if room < 0:
            break
        kept += 1
    left = len(lines) - kept
    return "\n".join([*lines[:kept], *([f"{left} lines more; the file has all rows"] if left else [])])


def _head(rows: Sequence[GpuRow]) -> list[str]:
    return sorted({f"{row.device}, commit {row.commit}, {row.date}" for row in rows})


def _parts(rows: Sequence[GpuRow]) -> Iterator[str]:
    for row in rows:
        if row.metric == WALL_TIME:
            yield f"{row.part}: {row.p50:.0f} s{'; ' if row.note else ''}{_cut(row.note, MOST_OF_A_NOTE)}"


def _failures(rows: Sequence[GpuRow]) -> Iterator[str]:
    for row in rows:
        if row.note.startswith("failed") and row.metric != WALL_TIME:
            yield f"{row.part}: {row.case}: {row.metric} {_number(row.p50)}: {_cut(row.note, MOST_OF_A_NOTE)}"


def _exactness(rows: Sequence[GpuRow]) -> Iterator[str]:
    """The worst case of each metric is enough of what is right or raised."""
    metrics: dict[str, list[GpuRow]] = defaultdict(list)
    for row in rows:
        if row.part == "exactness" and row.metric != WALL_TIME:
            metrics[row.metric].append(row)
    for metric, found in metrics.items():
        worst = max(found, key=lambda row: row.most)
        notes = Counter(row.note for row in found if row.note and not row.note.startswith("failed"))
        told = "".join(f"; {note}: {count}" for note, count in notes.items())
        yield f"exactness: {metric}: {len(found)} cases, at most {_number(worst.most)} ({worst.case}){told}"


def _pivot(rows: Sequence[GpuRow]) -> Iterator[str]:
    """A line for each system and each kind of case."""
    found: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    devices = {row.device for row in rows}
    for row in sorted(rows, key=_order):
        if row.part == "exactness" or row.metric == WALL_TIME or row.metric not in SHOWN.get(row.part, (row.metric,)):
            continue
        numbers = re.search(r"(?<= )\d+(?= )|(?<= )\d+$", row.case)
        case = row.case if numbers is None else f"{row.case[: numbers.start()]}#{row.case[numbers.end() :]}"
        label = "" if numbers is None else f"{numbers.group()}: "
        on = (row.device,) if len(devices) > 1 else ()
        found[row.part, case, row.system, *on][f"{row.metric} [{row.unit}]"].append(f"{label}{_number(row.p50)}")
    for (part, *named), metrics in found.items():
        told = "; ".join(f"{metric} {', '.join(values)}" for metric, values in metrics.items())
        yield f"{part}: {' | '.join(named)} | {told}"


def _order(row: GpuRow) -> tuple[int, list[tuple[int, str]], str]:
    """Numbers in a case by size."""
    part = PARTS.index(row.part) if row.part in PARTS else len(PARTS)
    return part, [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in row.case.split()], row.system


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _cut(line: str, most: int = MOST_OF_A_LINE) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"
