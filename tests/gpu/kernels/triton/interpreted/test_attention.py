"""The attention kernel and its reduce against the reference: plain rows, forests, partial results, padded tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from parrot_compat.gpu.kernels.reference.forest import merge_pair, strip_attention
from parrot_compat.gpu.kernels.strips import HeadShape, StripPlan, Tiling, plan_strips, row_shapes
from parrot_compat.gpu.kernels.triton.step import Capacity, StripTables, TritonStep, attend, merge, run_strips

from ..cases import Case, RowSpec, fresh_generator, make_case
from .conftest import DTYPES, TOLERANCE

SMALL = Tiling(direct_queries=4, private_queries=2, shared_queries=4, split_keys=16, shared_strips=2)
"""Cuts tiny rows often; each count of queries fits the tiles of two heads to a kv head."""


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(actual.cpu().double(), expected.double(), rtol=rtol, atol=atol)


def plan_of(case: Case, tiling: Tiling = SMALL, *, is_shared: bool = True) -> StripPlan:
    return plan_strips(row_shapes(case.inputs), case.inputs.page_size, tiling, case.shared if is_shared else ())


def run(
    case: Case, plan: StripPlan, capacity: Capacity | None = None, **options: float | int | None
) -> tuple[Tensor, Tensor]:
    exact = Capacity.of(plan, sum(len(pages) for pages in case.inputs.pages))
    tables = StripTables(capacity or exact, case.query.device)
    tables.load(plan, case.inputs.pages)
    out, lse = run_strips(
        case.query, case.keys, case.values, tables, case.inputs.page_size, scale=case.scale, keeps_lse=True, **options
    )
    assert lse is not None
    return out, lse


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(4, 2, 16), (6, 2, 24), (5, 1, 16), (3, 3, 40), (20, 1, 16)])
def test_decode_prefill_and_drafts_in_one_step_are_the_attention_of_the_reference(
    heads: tuple[int, int, int], dtype: torch.dtype, device: str
) -> None:
    rows = [RowSpec(keys=k, queries=q) for k, q in ((9, 1), (40, 1), (1, 1), (18, 18), (30, 9), (18, 2), (16, 1))]
    case = make_case(rows, heads=heads).on(device, dtype)
    out = attend(case.query, case.keys, case.values, TritonStep(case.inputs), scale=case.scale)
    close(out, case.expected(), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("window", "soft_cap"), [(1, None), (5, None), (17, 3.0), (None, 0.5)])
def test_windows_and_soft_caps(window: int | None, soft_cap: float | None, dtype: torch.dtype, device: str) -> None:
    rows = [RowSpec(keys=k, queries=q) for k, q in ((50, 1), (3, 1), (37, 10), (21, 2))]
    rows += [RowSpec(keys=3, front=("a",)), RowSpec(keys=20, front=("a",))]
    case = make_case(rows, {"a": 6}, heads=(2, 1, 16)).on(device, dtype)
    out, _ = run(case, plan_of(case), window=window, soft_cap=soft_cap)
    close(out, case.expected(window=window, soft_cap=soft_cap), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_strips_that_lie_before_every_window_are_left_out_and_nobody_reads_what_they_did_not_write(
    dtype: torch.dtype, device: str
) -> None:
    """Partials are NaN until they are written."""
    long = 4 * SMALL.split_keys
    rows = [RowSpec(keys=long), RowSpec(keys=long + 5, queries=2), RowSpec(keys=3, front=("a",))]
    rows += [RowSpec(keys=20, front=("a",)), RowSpec(keys=1)]
    case = make_case(rows, {"a": 12}, heads=(2, 1, 16)).on(device, dtype)
    for is_shared in (False, True):
        plan = plan_of(case, is_shared=is_shared)
        assert bool(len(plan.shared)) == is_shared
        out, lse = run(case, plan, window=20)
        close(out, case.expected(window=20), dtype)
        assert lse.isfinite().all()


def test_scores_beyond_what_exp_of_tanh_holds_are_capped_all_the_same(device: str) -> None:
    case = make_case([RowSpec(keys=20), RowSpec(keys=7, queries=7)]).on(device, torch.float32)
    case.query.mul_(1000.0)
    out, _ = run(case, plan_of(case), soft_cap=2.0)
    # scores of some thousands are rounded by some ten-thousandths, which counts where one of them is small
    torch.testing.assert_close(out.cpu().double(), case.expected(soft_cap=2.0).double(), rtol=0.0, atol=5e-3)


@pytest.mark.parametrize("page", [1, 3, 16, 32])
def test_pages_of_any_size(page: int, device: str) -> None:
    rows = [RowSpec(keys=33), RowSpec(keys=1, front=("a",)), RowSpec(keys=5, front=("a",)), RowSpec(keys=40, queries=9)]
    case = make_case(rows, {"a": -(-20 // page)}, page=page).on(device, torch.float32)
    close(run(case, plan_of(case))[0], case.expected(), torch.float32)


FORESTS = {
    "one prefix": ([("a", 3), ("a", 17), ("a", 1), ("", 9)], {"a": 5}),
    "empty private parts": ([("a", 0), ("a", 0), ("ab", 0), ("ab", 2)], {"a": 5, "b": 2}),
    "one row alone under a front": ([("a", 6), ("b", 2), ("b", 3)], {"a": 5, "b": 4}),
    "nested": ([("abc", 1), ("abc", 8), ("ab", 3), ("ab", 0), ("a", 30), ("", 4)], {"a": 3, "b": 7, "c": 5}),
    "several trees": ([("a", 2), ("bc", 5), ("a", 0), ("bc", 1), ("b", 6)], {"a": 5, "b": 3, "c": 2}),
    "more rows than a tile": ([("a", number % 3) for number in range(9)], {"a": 6}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORESTS)
def test_forests_of_shared_prefixes_are_invisible(name: str, dtype: torch.dtype, device: str) -> None:
    rows, fronts = FORESTS[name]
    specs = [RowSpec(keys=keys, front=tuple(front)) for front, keys in rows]
    case = make_case(specs, fronts, heads=(2, 1, 16)).on(device, dtype)
    plan = plan_of(case)
    assert len(plan.shared)
    out, lse = run(case, plan)
    close(out, case.expected(), dtype)
    close(lse, run(case, plan_of(case, is_shared=False))[1].cpu(), dtype)


def test_drafted_rows_share_with_plain_ones(device: str) -> None:
    rows = [
        RowSpec(keys=4, queries=2, front=("a",)),
        RowSpec(keys=1, front=("a",)),
        RowSpec(keys=2, queries=2, front=("a",)),
    ]
    case = make_case(rows, {"a": 5}).on(device, torch.float32)
    plan = plan_of(case)
    assert len(plan.members) > len(plan.lengths)
    close(run(case, plan)[0], case.expected(), torch.float32)


def test_random_steps(device: str) -> None:
    generator = fresh_generator()

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    for _ in range(4):
        fronts = {name: drawn(1, 5) for name in "abc"}
        rows = []
        for _ in range(drawn(1, 6)):
            queries = drawn(1, 6) if drawn(0, 2) == 0 else 1
            front = tuple(["", "a", "ab", "abc", "b", "c"][drawn(0, 5)])
            rows.append(RowSpec(keys=max(queries, drawn(0, 25)), queries=queries, front=front))
        kv_heads, group = drawn(1, 3), drawn(1, 2)
        heads = (kv_heads * group, kv_heads, [8, 16, 20, 32][drawn(0, 3)])
        case = make_case(rows, fronts, heads=heads, page=drawn(1, 8), generator=generator).on(device, torch.float32)
        window = [None, drawn(1, 30)][drawn(0, 1)]
        soft_cap = [None, 4.0][drawn(0, 1)]
        plan = plan_of(case)
        out, lse = run(case, plan, window=window, soft_cap=soft_cap)
        close(out, case.expected(window=window, soft_cap=soft_cap), torch.float32)
        specified = case.on("cpu", torch.float32)
        _, expected_lse = strip_attention(
            specified.query, specified.keys, specified.values, plan, torch.cat(specified.inputs.pages),
            case.inputs.page_size, scale=case.scale, window=window, soft_cap=soft_cap,
        )  # fmt: skip
        close(lse, expected_lse, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_is_the_same_bits_whatever_is_beside_it(dtype: torch.dtype, device: str) -> None:
    rows = [
        RowSpec(keys=40),
        RowSpec(keys=9, queries=9),
        RowSpec(keys=300),
        RowSpec(keys=2),
        RowSpec(keys=19, queries=4),
    ]
    case = make_case(rows).on(device, dtype)
    together = attend(case.query, case.keys, case.values, TritonStep(case.inputs), scale=case.scale)
    for number in range(len(rows)):
        first, end = case.inputs.query_starts[number : number + 2]
        inputs = type(case.inputs)(
            page_size=case.inputs.page_size, slots=case.inputs.slots[first:end], query_starts=(0, end - first),
            kv_lengths=case.inputs.kv_lengths[number : number + 1], pages=case.inputs.pages[number : number + 1],
        )  # fmt: skip
        query = case.query[first:end].contiguous()
        alone = attend(query, case.keys, case.values, TritonStep(inputs), scale=case.scale)
        assert torch.equal(alone, together[first:end])


def test_tables_with_room_hold_one_step_after_another(device: str) -> None:
    large = make_case([RowSpec(keys=k, front=tuple(f)) for f, k in (("ab", 9), ("ab", 20), ("a", 3), ("", 30))],
                      {"a": 6, "b": 3}).on(device, torch.float32)  # fmt: skip
    small = make_case([RowSpec(keys=4, front=("a",)), RowSpec(keys=0, front=("a",))], {"a": 4}).on(
        device, torch.float32
    )
    first = plan_of(large)
    capacity = Capacity.of(first, sum(len(pages) for pages in large.inputs.pages)).with_room(6)
    tables = StripTables(capacity, device)
    for case in (large, small, large):
        plan = plan_of(case)
        assert capacity.holds(Capacity.of(plan, sum(len(pages) for pages in case.inputs.pages)))
        tables.load(plan, case.inputs.pages)
        out, _ = run_strips(case.query, case.keys, case.values, tables, case.inputs.page_size, scale=case.scale)
        close(out, case.expected(), torch.float32)


def test_what_pads_a_table_is_a_token_that_has_no_partials(device: str) -> None:
    rows = [RowSpec(keys=keys, queries=queries) for keys, queries in ((20, 1), (9, 1), (1, 1), (2, 1), (5, 1), (9, 7))]
    case = make_case(rows).on(device, torch.float32)
    plan = plan_of(case)
    capacity = Capacity.of(plan, sum(len(pages) for pages in case.inputs.pages)).with_room(len(plan.lengths))
    assert capacity.tokens == len(plan.lengths) and capacity.split_tokens > len(plan.split_tokens)
    tables = StripTables(capacity, device)
    tables.load(plan, case.inputs.pages)
    padding = int(tables.split_tokens[-1])
    assert padding == capacity.tokens
    assert tables.slot_starts[padding] == tables.slot_starts[padding + 1]
    close(run(case, plan, capacity)[0], case.expected(), torch.float32)


@pytest.mark.parametrize("cut", [1, 13, 39])
def test_a_prefix_merged_with_what_follows_is_one_pass_over_both(cut: int, device: str) -> None:
    case = make_case([RowSpec(keys=40), RowSpec(keys=40)], page=1).on(device, torch.float32)

    def part(first: int, end: int) -> tuple[Tensor, Tensor]:
        inputs = case.inputs
        cut_inputs = type(inputs)(
            page_size=1, slots=inputs.slots, query_starts=inputs.query_starts, kv_lengths=(end - first,) * 2,
            pages=tuple(pages[first:end] for pages in inputs.pages),
        )  # fmt: skip
        some = Case(inputs=cut_inputs, shared=(), query=case.query, keys=case.keys, values=case.values)
        return run(some, plan_of(some))

    whole, whole_lse = run(case, plan_of(case))
    merged, lse = merge(*part(0, cut), *part(cut, 40))
    close(merged, whole.cpu(), torch.float32)
    close(lse, whole_lse.cpu(), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_merging_is_the_specified_merge_and_ignores_parts_that_saw_nothing(dtype: torch.dtype, device: str) -> None:
    generator = fresh_generator()
    outs = torch.randn(2, 6, 3, 24, generator=generator).to(device, dtype)
    lses = torch.randn(2, 6, 3, generator=generator).to(device) * 40
    expected, expected_lse = merge_pair(outs[0], lses[0], outs[1], lses[1])
    lses[0, 0], outs[0, 0] = -math.inf, math.nan
    lses[1, 1], outs[1, 1] = -math.inf, math.nan
    lses[:, 2], outs[:, 2] = -math.inf, math.nan
    merged, lse = merge(outs[0], lses[0], outs[1], lses[1])
    close(merged[3:], expected[3:].cpu(), dtype)
    close(lse[3:], expected_lse[3:].cpu(), torch.float32)
    assert torch.equal(merged[0], outs[1, 0]) and torch.equal(merged[1], outs[0, 1])
    assert not merged[2].any() and (lse[2] == -math.inf).all()


def test_a_layout_that_the_kernel_does_not_read_is_refused(device: str) -> None:
    case = make_case([RowSpec(keys=5), RowSpec(keys=6)]).on(device, torch.float32)
    turned = case.query.transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(AssertionError):
        attend(turned, case.keys, case.values, TritonStep(case.inputs), scale=1.0)
    with pytest.raises(AssertionError):
        attend(case.query.half(), case.keys, case.values, TritonStep(case.inputs), scale=1.0)


def test_a_model_is_cut_by_its_own_shape(device: str) -> None:
    case = make_case([RowSpec(keys=600), RowSpec(keys=200, queries=200)], page=16)
    step = TritonStep(case.on(device, torch.float32).inputs)
    wide = step.plan(HeadShape(heads=32, kv_heads=8, dim=128, element_bytes=2))
    assert len(wide.private) == 3 and len(wide.direct) == 7
