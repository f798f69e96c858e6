"""A drawing, read back with the eyes of a reader: following the lines gives the graph."""

from __future__ import annotations

import pytest
from drawing import draw, numbered
from hypothesis import given, settings
from hypothesis import strategies as st

OPEN = {"─": "lr", "│": "", "┌": "rd", "└": "ru", "┐": "ld", "┘": "lu", "├": "rud", "┤": "lud", "┬": "lrd", "┴": "lru"}
OPEN["┼"] = "lrud"
STEP = {"l": (0, -1), "r": (0, 1), "u": (-1, 0), "d": (1, 0)}
BACK = {"l": "r", "r": "l", "u": "d", "d": "u"}


def edges(drawing: str) -> set[tuple[str, str]]:
    """(left, right) for every two names that a line joins."""
    lines = drawing.splitlines()
    found = set()
    for row, line in enumerate(lines):
        for column, char in enumerate(line):
            if char.isalnum() and line[column + 1 : column + 3] == " ─":
                found |= {(char, end) for end in followed(lines, row, column + 2)}
    return found


def followed(lines: list[str], row: int, column: int) -> set[str]:
    ends, seen, waiting = set(), set(), [(row, column, "r")]
    while waiting:
        row, column, way = step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        char = lines[row][column]
        if char == " ":  # a line to the right has ended before a name
            ends.add(lines[row][column + 1])
            continue
        ways = way if char == "│" else OPEN[char].replace(BACK[way], "")
        assert char == "│" or BACK[way] in OPEN[char], f"a line runs into the closed side of {char}"
        waiting += [(row + STEP[go][0], column + STEP[go][1], go) for go in ways if go != "l"]
    return ends


def implied(reads: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Edges that a longer way makes needless."""
    behind: dict[str, set[str]] = {}
    for call, sources in reads.items():
        behind[call] = sources.union(*(behind[source] for source in sources))
    return {
        (source, call)
        for call, sources in reads.items()
        for source in sources
        if any(source in behind[other] for other in sources)
    }


@st.composite
def graphs(draw_from: st.DrawFn) -> dict[str, set[str]]:
    names = "abcdefgh"[: draw_from(st.integers(1, 8))]
    return {
        name: draw_from(st.sets(st.sampled_from(names[:index]))) if index else set() for index, name in enumerate(names)
    }


@given(graphs())
@settings(max_examples=400, deadline=None)
def test_the_lines_are_the_edges_less_those_that_others_imply(reads: dict[str, set[str]]) -> None:
    drawing = draw({name: name for name in reads}, reads, width=10_000)
    wanted = {(source, call) for call, sources in reads.items() for source in sources} - implied(reads)
    assert edges(drawing) == wanted, f"\n{drawing}"
    assert sorted(char for char in drawing if char.isalnum()) == sorted(reads)


def test_map_reduce_looks_like_one() -> None:
    names = {"m0": "map", "m1": "map", "m2": "map", "r": "reduce"}
    assert draw(names, {"r": {"m0", "m1", "m2"}}) == "map 1 ─┬─ reduce\nmap 2 ─┤\nmap 3 ─┘"


def test_of_many_calls_alike_some_are_drawn() -> None:
    names = {f"m{number}": "map" for number in range(30)} | {"r": "reduce"}
    drawing = draw(names, {"r": {*names} - {"r"}})
    assert drawing.splitlines()[2].startswith("⋮ 27 more ─┤") and "map 30" in drawing
    assert len(drawing.splitlines()) == 4


def test_a_long_chain_goes_on_below_and_fits_the_width() -> None:
    names = {str(number): "refine" for number in range(1500)}
    drawing = draw(names, {str(number): {str(number - 1)} for number in range(1, 1500)}, width=80)
    assert all(len(line) <= 80 for line in drawing.splitlines())
    assert " ".join(drawing.replace("─", "").split()) == " ".join(f"refine {number}" for number in range(1, 1501))


def test_ids_that_are_not_drawn_are_left_out() -> None:
    assert draw({"a": "a", "b": "b"}, {"b": {"a", "brief"}}) == "a ─── b"
    assert draw({}, {}) == ""


def test_a_circle_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a, b read one another"):
        draw({"a": "a", "b": "b"}, {"a": {"b"}, "b": {"a"}})


def test_names_are_numbered_only_where_they_repeat() -> None:
    assert numbered({"x": "map", "y": "reduce", "z": "map"}) == {"x": "map 1", "y": "reduce", "z": "map 2"}
