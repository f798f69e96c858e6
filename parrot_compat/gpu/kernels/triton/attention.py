"""Paged attention strip by strip (`kernels/strips.py` says what a strip is): one kernel for prefill, decode and the
shared prefixes of decode, and the reduce that merges partial results.

  score[q, k] = cap(scale * query[q] . key[k])      cap(x) = soft_cap * tanh(x / soft_cap), or x
  visible     = lengths[q] - window <= k < lengths[q]
  lse[q]      = log sum_visible exp(score)                                natural log, float32; -inf: nothing visible
  out[q]      = sum_visible exp(score - lse[q]) * value[k]                accumulated in float32

Shapes and layouts are those of `kernels/__init__`; pages of any size, head dims up to 256, any number of heads per kv
head. float32 products are exact (no TF32). Offsets into caches and partials are int64: caches outgrow 2^31 elements.

The invariant: a query's numbers follow from its own strips; nothing else of the grid reaches them.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"
# Triton has no types; what follows `@triton.jit` is its own language.

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend_strips", "merge_pair", "merge_partials"]


@triton.jit
def _extend(
    q, top, total, sums, start, stop, end, length, scale, window, soft_cap, key_cache, value_cache, pages, kv_head,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, KEYS: tl.constexpr, MASKED: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr,
):  # fmt: skip
    """Online softmax over keys start .. stop - 1 in steps of KEYS; unless MASKED every row sees all of them.

    What is seen has the same bits either way where products and sums are not fused (`enable_fp_fusion` of the launch).
    Where they are, `score - base` becomes part of the product before it, unless a mask stands between."""
    dim = tl.arange(0, q.shape[1])
    is_dim = dim < DIM
    for at in range(start, stop, KEYS):
        position = at + tl.arange(0, KEYS)
        known = position < end  # pages behind the strip are not its own: nothing of them may be read
        if MASKED:
            page = tl.load(pages + position // PAGE, mask=known, other=0).to(tl.int64)
        else:
            page = tl.load(pages + position // PAGE).to(tl.int64)
        place = ((page * PAGE + position % PAGE) * KV_HEADS + kv_head) * DIM
        # [KEYS, dim]
        if MASKED:
            k = tl.load(key_cache + place[:, None] + dim[None, :], mask=known[:, None] & is_dim[None, :], other=0.0)
            v = tl.load(value_cache + place[:, None] + dim[None, :], mask=known[:, None] & is_dim[None, :], other=0.0)
        else:
            k = tl.load(key_cache + place[:, None] + dim[None, :], mask=is_dim[None, :], other=0.0)
            v = tl.load(value_cache + place[:, None] + dim[None, :], mask=is_dim[None, :], other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale  # [ROWS, KEYS] float32
        if HAS_CAP:  # tanh, written so that neither end overflows
            score = soft_cap * (2.0 / (1.0 + tl.exp(-2.0 * score / soft_cap)) - 1.0)
        if MASKED:
            visible = known[None, :] & (position[None, :] < length[:, None])
            if HAS_WINDOW:
                visible = visible & (position[None, :] >= length[:, None] - window)
            score = tl.where(visible, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen nothing: exp(-inf - 0) is 0
        weight = tl.exp(score - base[:, None])
        fade = tl.exp(top - base)
        total = total * fade + tl.sum(weight, 1)
        sums = tl.dot(weight.to(v.dtype), v, sums * fade[:, None], input_precision="ieee")
        top = higher
    return top, total, sums


@triton.jit(do_not_specialize=["window"])
def attend_strips(
    query, key_cache, value_cache, strips, members, lengths, slot_starts, pages, out, lse, scale, window, soft_cap,
    PAGE: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    GROUP_PADDED: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIRECT: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, KEEPS_LSE: tl.constexpr,
):  # fmt: skip
    """One program per (strip, kv head).  grid [strips * KV_HEADS]; a strip without members is padding.

    strips [strips, 6] int32; members, lengths, slot_starts, pages int32, of `StripPlan`
    out    DIRECT: [tokens, HEADS, DIM] in its own dtype; else partials [slots, HEADS, DIM] float32
    lse    DIRECT: [tokens, HEADS] float32 if KEEPS_LSE; else [slots, HEADS], always.
    A partial that saw no key has lse -inf and its `out` is not written; nobody reads it.
    """
    strip = tl.program_id(0) // KV_HEADS  # kv heads of one strip side by side: their keys are side by side in memory
    kv_head = tl.program_id(0) % KV_HEADS
    count = tl.load(strips + strip * 6 + 1)
    if count == 0:
        return
    first_member = tl.load(strips + strip * 6)
    first = tl.load(strips + strip * 6 + 3)
    end = first + tl.load(strips + strip * 6 + 4)
    pages += tl.load(strips + strip * 6 + 2)

    # The rows of the product are the heads of the kv head's group, for each of the strip's queries.
    row = tl.arange(0, ROWS)
    member = row // GROUP_PADDED
    in_group = row % GROUP_PADDED
    is_row = (member < count) & (in_group < HEADS // KV_HEADS)
    token = tl.load(members + first_member + member, mask=is_row, other=0).to(tl.int64)
    length = tl.load(lengths + token, mask=is_row, other=0)
    head = kv_head * (HEADS // KV_HEADS) + in_group
    shortest = tl.min(tl.where(is_row, length, 2147483647))
    if HAS_WINDOW and not DIRECT and end <= shortest - window:  # nobody sees a key: of a long text, most of its strips
        slot = tl.load(slot_starts + token, mask=is_row, other=0).to(tl.int64) + tl.load(strips + strip * 6 + 5)
        tl.store(lse + slot * HEADS + head, tl.full([ROWS], float("-inf"), tl.float32), mask=is_row)
        return
    dim = tl.arange(0, DIM_PADDED)
    stored = is_row[:, None] & (dim < DIM)[None, :]
    q = tl.load(query + ((token * HEADS + head) * DIM)[:, None] + dim[None, :], mask=stored, other=0.0)  # [ROWS, dim]

    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, DIM_PADDED], tl.float32)
    stop = tl.minimum(end, tl.max(length))
    if HAS_WINDOW:
        # Whole steps that lie before every row's window are left out; steps stay where they are without a window.
        first += tl.maximum(shortest - window - first, 0) // KEYS * KEYS
        middle = first
    else:
        middle = first + tl.maximum(tl.minimum(shortest, end) - first, 0) // KEYS * KEYS
        top, total, sums = _extend(
            q, top, total, sums, first, middle, end, length, scale, window, soft_cap, key_cache, value_cache, pages,
            kv_head, PAGE, KV_HEADS, DIM, KEYS, False, HAS_WINDOW, HAS_CAP,
        )  # fmt: skip
    top, total, sums = _extend(
        q, top, total, sums, middle, stop, end, length, scale, window, soft_cap, key_cache, value_cache, pages,
        kv_head, PAGE, KV_HEADS, DIM, KEYS, True, HAS_WINDOW, HAS_CAP,
    )  # fmt: skip

    place = token
    if not DIRECT:
        place = tl.load(slot_starts + token, mask=is_row, other=0).to(tl.int64) + tl.load(strips + strip * 6 + 5)
    place = place * HEADS + head
    seen = total > 0.0
    if KEEPS_LSE or not DIRECT:
        tl.store(lse + place, tl.where(seen, top + tl.log(total), float("-inf")), mask=is_row)
    mean = sums / tl.where(seen, total, 1.0)[:, None]
    tl.store(out + (place * DIM)[:, None] + dim[None, :], mean.to(out.dtype.element_ty), mask=stored & seen[:, None])


@triton.jit
def merge_partials(
    partial, partial_lse, slot_starts, tokens, out, lse, HEADS: tl.constexpr, DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr, SLOTS: tl.constexpr, KEEPS_LSE: tl.constexpr,
):  # fmt: skip
    """One program per (token, head): the partials of that token become its result.  grid [tokens * HEADS].

    partial [slots, HEADS, DIM], partial_lse [slots, HEADS] float32; slot_starts [all tokens + 1], tokens [tokens] int32
    out     [all tokens, HEADS, DIM]; lse [all tokens, HEADS] float32 if KEEPS_LSE
    A token without partials is padding.
    """
    token = tl.load(tokens + tl.program_id(0) // HEADS).to(tl.int64)
    head = tl.program_id(0) % HEADS
    first = tl.load(slot_starts + token)
    stop = tl.load(slot_starts + token + 1)
    if first == stop:
        return
    dim = tl.arange(0, DIM_PADDED)
    top = float("-inf")
    total = 0.0
    sums = tl.zeros([DIM_PADDED], tl.float32)
    for at in range(first, stop, SLOTS):
        slot = at + tl.arange(0, SLOTS)
        place = slot.to(tl.int64) * HEADS + head
        part = tl.load(partial_lse + place, mask=slot < stop, other=float("-inf"))  # [SLOTS]
        higher = tl.maximum(top, tl.max(part, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(part - base)
        fade = tl.exp(top - base)
        written = (part > float("-inf"))[:, None] & (dim < DIM)[None, :]
        mean = tl.load(partial + (place * DIM)[:, None] + dim[None, :], mask=written, other=0.0)  # [SLOTS, dim]
        total = total * fade + tl.sum(weight, 0)
        sums = sums * fade + tl.sum(mean * weight[:, None], 0)
        top = higher
    place = token * HEADS + head
    if KEEPS_LSE:
        tl.store(lse + place, top + tl.log(total))
    tl.store(out + place * DIM + dim, (sums / total).to(out.dtype.element_ty), mask=dim < DIM)


@triton.jit
def merge_pair(
    out_a, lse_a, out_b, lse_b, out, lse, DIM: tl.constexpr, DIM_PADDED: tl.constexpr
):  # fmt: skip
    """One program per (row, head): merge two partial attentions over disjoint keys.  grid [rows * heads].

    out_*, out [rows, heads, DIM] of one dtype; lse_*, lse [rows, heads] float32, natural log; -inf: saw no key, and
    what its `out` holds then does not matter. If neither saw one, out is 0.
    """
    place = tl.program_id(0).to(tl.int64)
    dim = tl.arange(0, DIM_PADDED)
    is_dim = dim < DIM
    a = tl.load(lse_a + place)
    b = tl.load(lse_b + place)
    top = tl.maximum(a, b)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight_a = tl.exp(a - base)
    weight_b = tl.exp(b - base)
    total = weight_a + weight_b  # >= 1: the larger weight is exp(0)
    mean_a = tl.where(weight_a > 0.0, tl.load(out_a + place * DIM + dim, mask=is_dim, other=0.0).to(tl.float32), 0.0)
    mean_b = tl.where(weight_b > 0.0, tl.load(out_b + place * DIM + dim, mask=is_dim, other=0.0).to(tl.float32), 0.0)
    mean = (mean_a * weight_a + mean_b * weight_b) / tl.where(total > 0.0, total, 1.0)
    tl.store(out + place * DIM + dim, mean.to(out.dtype.element_ty), mask=is_dim)
    tl.store(lse + place, base + tl.log(total))
