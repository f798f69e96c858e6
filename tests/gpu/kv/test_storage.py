"""KV storage: slots, views and page copies."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.kv.storage import KvStorage


def storage_of(pages: int = 6) -> KvStorage:
    storage = KvStorage(layers=2, pages=pages, page_size=4, kv_heads=3, dim=5, dtype=torch.float32, device="cpu")
    for layer in range(2):
        storage.keys[layer].copy_(torch.randn_like(storage.keys[layer]))
        storage.values[layer].copy_(torch.randn_like(storage.values[layer]))
    return storage


def page(storage: KvStorage, number: int) -> torch.Tensor:
    return torch.stack([layer[number * 4 : number * 4 + 4] for layer in (*storage.keys, *storage.values)]).clone()


def test_each_layer_has_contiguous_slots_that_start_at_zero() -> None:
    storage = KvStorage(layers=2, pages=6, page_size=4, kv_heads=3, dim=5, dtype=torch.bfloat16, device="cpu")
    for layer in (*storage.keys, *storage.values):
        assert layer.shape == (24, 3, 5) and layer.dtype == torch.bfloat16
        assert layer.is_contiguous() and not layer.any()


def test_a_copied_page_is_equal_in_all_layers_and_no_other_page_changes() -> None:
    storage = storage_of()
    before = [page(storage, number) for number in range(6)]
    storage.copy_pages([(1, 4), (2, 0)])
    after = [page(storage, number) for number in range(6)]
    assert torch.equal(after[4], before[1]) and torch.equal(after[0], before[2])
    for number in (1, 2, 3, 5):
        assert torch.equal(after[number], before[number])


def test_no_pairs_copy_nothing() -> None:
    storage = storage_of()
    before = page(storage, 0)
    storage.copy_pages([])
    assert torch.equal(page(storage, 0), before)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_any_pairs_copy_as_if_one_after_another(pairs: list[tuple[int, int]]) -> None:
    storage = storage_of()
    expected = [page(storage, number) for number in range(6)]
    for source, target in pairs:
        expected[target] = expected[source]
    storage.copy_pages(pairs)
    for number in range(6):
        assert torch.equal(page(storage, number), expected[number])
