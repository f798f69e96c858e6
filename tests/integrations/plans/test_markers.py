"""Markers: they pass through text unharmed, become references, and mean nothing to another search."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.integrations.plans.ledger import reference
from parrot_compat.integrations.plans.markers import Markers, Source

PICKED = {"json_pointer": "/name"}


def body(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def test_markers_of_one_search_mean_nothing_to_another() -> None:
    one, other = Markers(), Markers()
    assert one.stand_in(f"a{one.text(3)}")
    assert not other.stand_in(one.text(3))
    assert other.split(one.text(3)) == [one.text(3)]


def test_what_markers_stand_for_is_found_in_order() -> None:
    markers = Markers()
    text = f"a{markers.text(3)}{markers.text(4, PICKED)} b{markers.text(3, 'strip')}"
    assert markers.split(text) == ["a", Source(3), Source(4, PICKED), " b", Source(3, "strip")]


def test_a_marker_that_was_cut_is_noticed() -> None:
    markers = Markers()
    assert markers.are_whole(f"a{markers.text(3)}") and not markers.are_whole(markers.text(3)[:-1])


def test_only_the_whole_text_of_a_call_is_its_answer() -> None:
    markers = Markers()
    assert markers.call_of(markers.text(12)) == 12
    others = (markers.text(12, "strip"), f"{markers.text(12)}.", markers.text(1) + markers.text(2), "", "text")
    assert [markers.call_of(text) for text in others] == [None] * len(others)


def test_a_message_with_markers_becomes_parts_that_name_the_calls_it_reads() -> None:
    markers = Markers()
    content = f"say {markers.text(2, 'strip')} and {markers.text(0)}, {markers.text(2)}"
    parts = [
        {"type": "text", "text": "say "},
        reference("run-2", "strip"),
        {"type": "text", "text": " and "},
        reference("run-0"),
        {"type": "text", "text": ", "},
        reference("run-2"),
    ]
    assert markers.referring(body(content, n=1), "run") == (body(parts, n=1), ("run-2", "run-0"))
    assert markers.referring(body("nothing"), "run") == (body("nothing"), ())


@pytest.mark.parametrize("where", ["parameter", "part", "cut"])
def test_a_body_in_which_a_marker_is_left_is_not_planned(where: str) -> None:
    markers = Markers()
    marker = markers.text(0)
    bodies = {
        "parameter": body("a", user=marker),
        "part": body([{"type": "text", "text": marker}]),
        "cut": body(marker[:-1]),
    }
    assert markers.referring(bodies[where], "run") is None
