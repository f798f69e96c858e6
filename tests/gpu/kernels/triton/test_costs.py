"""Whether sharing pays: by a device's own numbers, by a rule of thumb without them, prefix by prefix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from parrot_compat.gpu.kernels.costs import (
    ALL_SEEN,
    STORED,
    UNMEASURED_KEYS,
    DeviceCosts,
    Windows,
    device_costs,
    worth_sharing,
)
from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kernels.strips import HeadShape

PAGE = 16
LLAMA = HeadShape(heads=32, kv_heads=8, dim=128, element_bytes=2)
INVENTED = DeviceCosts(
    device="a device", dtype="bfloat16", memory_bytes_per_s=4e12, cache_bytes_per_s=8e12, cache_bytes=50 << 20,
    products_per_s=4e14, launch_s=3e-6, versions="", commit="", date="",
)  # fmt: skip


def prefix(rows: int, keys: int, first: int = 0) -> SharedPrefix:
    return SharedPrefix(rows=tuple(range(first, first + rows)), first_page=0, end_page=keys // PAGE)


def shared(
    *prefixes: SharedPrefix,
    costs: DeviceCosts | None = INVENTED,
    windows: Windows = ALL_SEEN,
    starts: Sequence[int] = (),
    strips: int = 16,
) -> tuple[SharedPrefix, ...]:
    return worth_sharing(prefixes, PAGE, LLAMA, costs, strips=strips, windows=windows, starts=starts)


def test_many_rows_over_a_long_prefix_share_it() -> None:
    assert shared(prefix(64, 8192)) == (prefix(64, 8192),)


def test_few_rows_over_a_short_prefix_do_not() -> None:
    assert shared(prefix(2, 64)) == ()


def test_a_prefix_that_the_cache_holds_is_worth_less() -> None:
    small_cache = replace(INVENTED, cache_bytes=0)
    gaining = [rows for rows in range(2, 40) if shared(prefix(rows, 4096))]
    without = [rows for rows in range(2, 40) if shared(prefix(rows, 4096), costs=small_cache)]
    assert set(gaining) < set(without)


def test_one_prefix_that_gains_nothing_does_not_switch_the_others_off() -> None:
    large, small = prefix(64, 8192), prefix(2, PAGE, first=64)
    assert shared(small, large) == (large,)


def test_a_prefix_that_one_more_row_cuts_in_two_is_still_shared() -> None:
    costs = DeviceCosts(**json.loads(STORED.read_text())[0])
    whole = SharedPrefix(rows=tuple(range(16)), first_page=0, end_page=2048 // PAGE)
    first = SharedPrefix(rows=tuple(range(17)), first_page=0, end_page=1024 // PAGE)
    second = SharedPrefix(rows=tuple(range(16)), first_page=1024 // PAGE, end_page=2048 // PAGE)

    def found(*prefixes: SharedPrefix) -> tuple[SharedPrefix, ...]:
        return worth_sharing(prefixes, PAGE, LLAMA, costs, strips=33)

    assert found(whole) == (whole,)
    assert found(first, second) == (first, second)


def levels(*rows_and_ends: tuple[range, int]) -> list[SharedPrefix]:
    """Each below the one before."""
    begins = [0, *(end for _, end in rows_and_ends)]
    return [
        SharedPrefix(rows=tuple(rows), first_page=begin // PAGE, end_page=end // PAGE)
        for begin, (rows, end) in zip(begins, rows_and_ends, strict=False)
    ]


def test_a_few_words_that_all_have_in_common_take_nothing_from_those_that_have_more() -> None:
    greeting, mine, theirs = prefix(128, PAGE), prefix(64, 8192), prefix(64, 8192, first=64)
    behind = [replace(each, first_page=1) for each in (mine, theirs)]
    found = shared(greeting, *behind, costs=None)
    assert found == (mine, theirs), "what is not read together is read with what follows"


def test_prefixes_that_do_not_pay_one_by_one_may_pay_as_one() -> None:
    parts = levels((range(10), 4096), (range(9), 8192))
    assert shared(*parts[:1], costs=None) == ()
    assert shared(*parts, costs=None) == (prefix(9, 8192),)


def test_a_prefix_that_is_read_together_keeps_its_keys() -> None:
    parts = levels((range(80), 8192), (range(64), 16_384))
    assert shared(*parts) == tuple(parts)


def test_prefixes_that_do_not_pay_take_no_strips_from_those_that_do() -> None:
    pairs = [prefix(2, PAGE, first=100 + 2 * number) for number in range(100)]
    assert shared(*pairs) == ()
    for rows in range(2, 40):
        one = prefix(rows, 2048)
        assert shared(one, *pairs, strips=132) == shared(one, strips=132)


def test_those_that_are_left_pay_for_all_strips() -> None:
    costs = replace(DeviceCosts(**json.loads(STORED.read_text())[0]), launch_s=0.0)
    shape = HeadShape(heads=8, kv_heads=1, dim=256, element_bytes=2)
    sizes = [(4, 2048), (6, 512), (2, 4096), (2, 4096)]
    roots = [prefix(rows, keys, first=10 * number) for number, (rows, keys) in enumerate(sizes)]
    kept = worth_sharing(roots, PAGE, shape, costs, strips=264)
    assert kept == worth_sharing(kept, PAGE, shape, costs, strips=264)


def test_a_gain_smaller_than_another_launch_is_none() -> None:
    assert shared(prefix(64, 8192), costs=replace(INVENTED, launch_s=1.0)) == ()


def test_where_no_layers_window_reaches_a_prefix_there_is_nothing_to_share() -> None:
    many = prefix(64, 8192)
    for costs in (INVENTED, None):
        assert shared(many, costs=costs, windows={4096: 32}, starts=[8192] * 64) == (many,)
        assert shared(many, costs=costs, windows={4096: 32}, starts=[8192 + 4096] * 64) == ()
        assert shared(many, costs=costs, windows={4096: 32}, starts=[8192 + 4096] * 62 + [8192] * 2) == ()


def test_a_window_reaches_as_many_keys_as_the_kernel_sees_less_the_rows_own() -> None:
    far = prefix(9, 16_384)
    assert UNMEASURED_KEYS == (9 - 1) * 8192
    assert shared(far, costs=None, windows={8193: 4}, starts=[16_384] * 9) == (far,)
    assert shared(far, costs=None, windows={8192: 4}, starts=[16_384] * 9) == ()


def test_a_prefix_that_half_of_the_layers_see_is_worth_half() -> None:
    def least_rows(windows: Windows) -> int:
        return next(rows for rows in range(2, 99) if shared(prefix(rows, 1024), windows=windows, starts=[9000] * rows))

    all_layers, half, none_but_one = (
        least_rows({None: 26}),
        least_rows({None: 13, 4096: 13}),
        least_rows({None: 1, 9: 9}),
    )
    assert 2 < all_layers < half < none_but_one
    whole = prefix(8, 16_384)
    assert shared(whole, costs=None, windows={None: 1}) == (whole,)
    assert shared(whole, costs=None, windows={None: 13, 4096: 13}, starts=[20_480] * 8) == ()


def test_without_measurements_only_much_reading_saved_counts() -> None:
    assert shared(prefix(9, 8192), prefix(65, 1024, 9), prefix(8, 8192, 80), prefix(2, 32768, 90), costs=None) == (
        prefix(9, 8192),
        prefix(65, 1024, 9),
    )


def test_costs_are_those_stored_for_the_device_and_dtype(tmp_path: Path) -> None:
    stored = tmp_path / "devices.json"
    stored.write_text(json.dumps([asdict(INVENTED), {**asdict(INVENTED), "dtype": "float32", "cache_bytes": 1}]))
    assert device_costs("a device", "bfloat16", stored) == INVENTED
    assert device_costs("another", "bfloat16", stored) is None
    found = device_costs("a device", "float32", stored)
    assert found is not None and found.cache_bytes == 1


def test_float16_has_the_costs_of_bfloat16_until_it_has_some_of_its_own(tmp_path: Path) -> None:
    stored = tmp_path / "devices.json"
    stored.write_text(json.dumps([asdict(INVENTED)]))
    assert device_costs("a device", "float16", stored) == INVENTED
    assert device_costs("another", "float16", stored) is None
    assert device_costs("a device", "float32", stored) is None, "its numbers are of another size"
    own = replace(INVENTED, dtype="float16", cache_bytes=1)
    stored.write_text(json.dumps([asdict(INVENTED), asdict(own)]))
    assert device_costs("a device", "float16", stored) == own


def test_what_is_shipped_says_where_and_when_it_was_measured() -> None:
    for line in json.loads(STORED.read_text()):
        assert DeviceCosts(**line).commit and line["date"] and line["versions"]
