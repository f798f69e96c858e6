from __future__ import annotations

import pytest

from parrot_compat.integrations import chunks as chunking
from parrot_compat.integrations.chunks import chunks


@pytest.mark.parametrize(
    ("items", "calls", "parts"),
    [
        ([], 1, [[]]),
        (["a"], 1, [["a"]]),
        (["a", "b", "c", "d", "e"], 1, [["a", "b", "c", "d"], ["e"]]),
        (["a", "b", "c", "d"], 2, [["a", "b"], ["c", "d"]]),
        (["a", "b"], 9, [["a"], ["b"]]),
        (["x" * 20, "a", "b"], 1, [["x" * 20], ["a", "b"]]),
        (["a", "b", "x" * 20], 1, [["a", "b"], ["x" * 20]]),
        (["a", "\N{SNOWMAN}", "b", "c"], 1, [["a", "\N{SNOWMAN}"], ["b", "c"]]),
    ],
)
def test_a_chunk_has_no_more_calls_and_bytes_than_a_request_may_have(
    monkeypatch: pytest.MonkeyPatch, items: list[str], calls: int, parts: list[list[str]]
) -> None:
    monkeypatch.setattr(chunking, "MOST_CALLS", 4)
    monkeypatch.setattr(chunking, "MOST_BYTES", 12)
    assert list(chunks(items, calls)) == parts
