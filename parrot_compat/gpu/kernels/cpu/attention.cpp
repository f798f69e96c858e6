// Paged causal attention on a CPU. One query: its keys in chunks, each by whatever thread is free, merged in order.
// Several queries: blocks of them against chunks of keys, as products of small matrices held in registers.
//
// A token's result depends on its row's keys alone, bit for bit: chunks begin at fixed positions, whatever else is in
// the step and however many threads there are. But the two ways add in different orders: a token that is alone in its
// row's part of a step (drawn, or cut off alone) has other last bits than the same token among several, unless the step
// says `in_blocks`.
#include "rows.h"
#include "tiles.h"
#include <algorithm>

namespace {

constexpr int CHUNK = 128; // keys of one query at once
constexpr int AHEAD = 32;  // keys: how early they are asked for
constexpr int KEYS = 128;  // keys of a block of queries at once
constexpr int BLOCK = 192; // queries times heads of a group, at most about
constexpr int LINES = 12;  // of them, against the same keys at once

const ivec LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline int64_t up(int64_t count) { return (count + LANES - 1) / LANES * LANES; }
// The first number at or behind p that begins a line of the caches.
inline float *aligned(float *p) { return (float *)((uintptr_t(p) + 63) / 64 * 64); }

inline vec capped(vec scores, float cap) { return cap ? tanh(scores / cap) * cap : scores; }

// Products of a query with N keys: lane i is key i's.
template <int N, int V> vec dots(const vec (&query)[V], const float *keys, const int64_t *places) {
    if constexpr (N == 1) {
        const float *key = keys + *places;
        vec product = query[0] * load(key);
        for (int j = 1; j < V; j++) product = fma(query[j], load(key + j * LANES), product);
        return product;
    } else {
        return pairs(dots<N / 2>(query, keys, places), dots<N / 2>(query, keys, places + N / 2));
    }
}

template <int LEVEL, class T> void fetch(const T *cache, const int64_t *places, int64_t count, int64_t dim) {
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < dim; d += 64 / sizeof(T)) __builtin_prefetch(cache + places[i] + d, 0, LEVEL);
}

// sums [M][V] of the weights of M heads, CHUNK apart, times values.
template <int M, int V, class T>
void weigh(const float *weights, const int64_t *places, int64_t count, const T *values, int64_t dim, float *sums,
           int64_t stride) {
    vec totals[M][V];
    unrolled<M * V>([&](auto n) INLINED { totals[n / V][n % V] = vec{}; });
    for (int64_t key = 0; key < count; key++) {
        vec value[V];
        unrolled<V>([&](auto j) INLINED { value[j] = load(values + places[key] + j * LANES, dim - j * LANES); });
        unrolled<M>([&](auto i) INLINED {
            const vec weight = all(weights[i * CHUNK + key]);
            unrolled<V>([&](auto j) INLINED { totals[i][j] = fma(weight, value[j], totals[i][j]); });
        });
    }
    unrolled<M * V>([&](auto n) INLINED { store(sums + n / V * stride + n % V * LANES, totals[n / V][n % V]); });
}

// One query, keys [begin, end): largest score, sum of weights, weighted values, for each head of the group.
// V: vectors of a head, at least.
template <int V, class T>
void attend_chunk(const Step &step, const Item &item, const T *query, const T *keys, const T *values, float *parts) {
    const int64_t dim = step.dim, group = step.group(), count = item.end - item.begin, stride = (V + 1) * LANES;
    thread_local std::vector<float> space;
    space.resize(group * CHUNK);
    float *scores = space.data(), wide[LANES * V * LANES];
    int64_t places[CHUNK], in_wide[LANES];
    for (int i = 0; i < LANES; i++) in_wide[i] = i * V * LANES;
    step.find(item.row, item.head, item.begin, count, places);
    for (int64_t key = count; key % LANES; key++) places[key] = places[0]; // of keys that will not count

    const T *from = query + (step.starts[item.row] * step.heads + item.head * group) * dim;
    for (int64_t key = 0; key < count; key += LANES) {
        fetch<3>(keys, places + key + AHEAD, std::min<int64_t>(LANES, count - key - AHEAD), dim);
        fetch<3>(values, places + key, LANES, dim);
        const float *k = wide;
        const int64_t *k_places = in_wide;
        if (std::is_same_v<T, float> && dim == V * LANES)
            k = (const float *)keys, k_places = places + key;
        else
            for (int i = 0; i < LANES; i++)
                for (int j = 0; j < V; j++)
                    store(wide + (i * V + j) * LANES, load(keys + places[key + i] + j * LANES, dim - j * LANES));
        for (int64_t g = 0; g < group; g++) {
            vec q[V];
            for (int j = 0; j < V; j++) q[j] = load(from + g * dim + j * LANES, dim - j * LANES) * step.scale;
            store(scores + g * CHUNK + key, capped(dots<LANES>(q, k, k_places), step.cap));
        }
    }
    for (int64_t g = 0; g < group; g++) {
        float *mine = scores + g * CHUNK;
        for (int64_t key = count; key % LANES; key++) mine[key] = -INFINITY;
        vec top = all(-INFINITY), total{};
        for (int64_t key = 0; key < count; key += LANES) top = max(top, load(mine + key));
        const float most = largest(top);
        for (int64_t key = 0; key < count; key += LANES) {
            vec weight = exp(load(mine + key) - most);
            store(mine + key, weight);
            total += weight;
        }
        parts[g * stride] = most;
        parts[g * stride + 1] = sum(total);
    }
    constexpr int TOGETHER = V <= 4 ? 4 : V <= 8 ? 2 : 1; // heads whose sums fit the registers
    for (int64_t g = 0; g < group;) {
        float *sums = parts + g * stride + LANES;
        if (TOGETHER == 4 && group - g >= 4)
            weigh<TOGETHER, V>(scores + g * CHUNK, places, count, values, dim, sums, stride), g += 4;
        else if (TOGETHER == 4 && group - g == 3)
            weigh<TOGETHER == 4 ? 3 : 1, V>(scores + g * CHUNK, places, count, values, dim, sums, stride), g += 3;
        else if (TOGETHER >= 2 && group - g >= 2)
            weigh<TOGETHER >= 2 ? 2 : 1, V>(scores + g * CHUNK, places, count, values, dim, sums, stride), g += 2;
        else
            weigh<1, V>(scores + g * CHUNK, places, count, values, dim, sums, stride), g += 1;
    }
}

// The chunks of one query and head, in order.
template <class T> void merge(const Step &step, const float *parts, int64_t chunks, int64_t stride, T *out) {
    float most = -INFINITY, total = 0;
    for (int64_t i = 0; i < chunks; i++) most = std::max(most, parts[i * stride]);
    float weights[chunks];
    for (int64_t i = 0; i < chunks; i++) {
        weights[i] = std::exp(parts[i * stride] - most);
        total += weights[i] * parts[i * stride + 1];
    }
    for (int64_t d = 0; d < step.dim; d += LANES) {
        vec result{};
        for (int64_t i = 0; i < chunks; i++) result = fma(all(weights[i]), load(parts + i * stride + LANES + d), result);
        store(out + d, result / total, step.dim - d);
    }
}

// The scores of one query become weights, of keys [low, high); what was summed before shrinks by what is given back.
float weights_of(float *scores, int64_t count, int64_t low, int64_t high, float cap, float &most, float &total) {
    if (cap || low > 0 || high < count)
        for (int64_t key = 0; key < count; key += LANES) {
            const ivec place = LANE + int32_t(key);
            const vec score = capped(load(scores + key), cap);
            store(scores + key, (place >= int32_t(low)) & (place < int32_t(high)) ? score : all(-INFINITY));
        }
    vec top = all(most), added{};
    for (int64_t key = 0; key < count; key += LANES) top = max(top, load(scores + key));
    const float now = largest(top);
    if (now == -INFINITY) { // a window that begins behind these keys
        memset(scores, 0, count * sizeof(float));
        return 1;
    }
    for (int64_t key = 0; key < count; key += LANES) {
        const vec weight = exp(load(scores + key) - now);
        store(scores + key, weight);
        added += weight;
    }
    const float shrink = now == most ? 1 : std::exp(most - now);
    total = total * shrink + sum(added);
    most = now;
    return shrink;
}

// Keys become columns, k [KEYS / STRIP][padded][STRIP]; values stay rows, v [KEYS][padded]. Zero where there are none.
template <class T>
void gather(const T *keys, const T *values, const int64_t *places, int64_t count, int64_t dim, float *k, float *v) {
    const int64_t padded = up(dim);
    for (int64_t key = 0; key < count; key++)
        for (int64_t d = 0; d < dim; d += LANES) store(v + key * padded + d, load(values + places[key] + d, dim - d));
    for (int64_t key = 0; key < count; key += LANES)
        for (int64_t d = 0; d < dim; d += LANES) {
            vec block[LANES];
            unrolled<LANES>([&](auto i) INLINED {
                block[i] = key + i < count ? load(keys + places[key + i] + d, dim - d) : vec{};
            });
            transpose(block);
            float *to = k + key / STRIP * STRIP * padded + d * STRIP + key % STRIP;
            unrolled<LANES>([&](auto i) INLINED { store(to + i * STRIP, block[i]); });
        }
}

// Queries [begin, end) of a row, for the heads of one kv head: a line each, LINES at a time, so that their scores stay
// in the first cache.
template <class T> void attend_block(const Step &step, const Item &item, const T *query, const T *keys, const T *values,
                                     T *out) {
    const int64_t dim = step.dim, group = step.group(), padded = up(dim);
    const int64_t lines = (item.end - item.begin) * group;
    const int64_t before = step.lengths[item.row] - step.queries(item.row); // position of the row's first query
    auto position = [&](int64_t line) { return before + item.begin + line / group; };
    auto place = [&](int64_t line) {
        int64_t token = step.starts[item.row] + item.begin + line / group;
        return (token * step.heads + item.head * group + line % group) * dim;
    };
    thread_local std::vector<float> space;
    space.resize(LANES + 2 * KEYS * padded + LINES * KEYS + lines * (2 * padded + 2));
    float *k = aligned(space.data()), *v = k + KEYS * padded, *scores = v + KEYS * padded, *q = scores + LINES * KEYS;
    float *sums = q + lines * padded, *total = sums + lines * padded, *most = total + lines;
    std::fill(sums, most, 0.0f);
    std::fill(most, most + lines, -INFINITY);
    for (int64_t line = 0; line < lines; line++)
        for (int64_t d = 0; d < dim; d += LANES)
            store(q + line * padded + d, load(query + place(line) + d, dim - d) * step.scale);

    const int64_t last = before + item.end; // behind the last key that any of them sees
    for (int64_t start = step.first(before + item.begin) / KEYS * KEYS; start < last; start += KEYS) {
        const int64_t count = std::min<int64_t>(KEYS, last - start);
        int64_t places[KEYS];
        step.find(item.row, item.head, start, count, places);
        gather(keys, values, places, count, dim, k, v);
        for (int64_t line = 0; line < lines; line += LINES) {
            const int64_t some = std::min<int64_t>(LINES, lines - line);
            const int64_t seen = std::min(count, position(line + some - 1) + 1 - start); // by any of these lines
            if (seen <= 0) continue;
            for (int64_t key = 0; key < up(seen); key += STRIP)
                product(q + line * padded, padded, k + key * padded, STRIP, scores + key, KEYS, some,
                        std::min<int64_t>(STRIP, up(seen) - key), dim, false);
            for (int64_t i = 0; i < some; i++) {
                const int64_t at = position(line + i), low = step.first(at) - start, high = at + 1 - start;
                const float shrink =
                    weights_of(scores + i * KEYS, up(seen), low, high, step.cap, most[line + i], total[line + i]);
                if (shrink != 1)
                    for (float *sum = sums + (line + i) * padded, *end = sum + padded; sum < end; sum += LANES)
                        store(sum, load(sum) * shrink);
            }
            product(scores, KEYS, v, padded, sums + line * padded, padded, some, padded, seen, true);
        }
    }
    for (int64_t line = 0; line < lines; line++)
        for (int64_t d = 0; d < dim; d += LANES)
            store(out + place(line) + d, load(sums + line * padded + d) / total[line], dim - d);
}

template <int V, class T> void attend_item(Attention &all, const Item &item, const Tensors &on) {
    const int64_t part = all.step.group() * (V + 1) * LANES;
    const T *query = (const T *)on.query, *keys = (const T *)on.keys, *values = (const T *)on.values;
    if (item.place < 0)
        attend_block(all.step, item, query, keys, values, (T *)on.out);
    else
        attend_chunk<V>(all.step, item, query, keys, values, all.space.data() + item.place * part);
}

template <int V, class T> void merge_item(Attention &all, const Item &item, const Tensors &on) {
    const Step &step = all.step;
    const int64_t group = step.group(), stride = (V + 1) * LANES;
    for (int64_t g = 0; g < group; g++) {
        T *to = (T *)on.out + (step.starts[item.row] * step.heads + item.head * group + g) * step.dim;
        merge(step, all.space.data() + (item.begin * group + g) * stride, item.end - item.begin, group * stride, to);
    }
}

} // namespace

Attention::Attention(int format, const Step &of) : step(of) {
    int64_t vectors = 0;
    with_format(format, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        auto use = [&](auto chosen) {
            constexpr int V = decltype(chosen)::value;
            vectors = V, attend = attend_item<V, T>, merge = merge_item<V, T>;
        };
        const int64_t needed = (step.dim + LANES - 1) / LANES;
        if (needed <= 1) use(std::integral_constant<int, 1>());
        else if (needed <= 2) use(std::integral_constant<int, 2>());
        else if (needed <= 4) use(std::integral_constant<int, 4>());
        else if (needed <= 6) use(std::integral_constant<int, 6>());
        else if (needed <= 8) use(std::integral_constant<int, 8>());
        else use(std::integral_constant<int, 16>());
    });
    const int64_t group = step.group(), stride = (vectors + 1) * LANES;
    const int64_t block = std::max<int64_t>(1, BLOCK / group);
    int64_t parts = 0;
    for (int64_t row = 0; row < step.rows; row++) {
        const int64_t queries = step.queries(row), begins = step.begin(row), length = step.lengths[row];
        if (begins == queries) continue;
        if (queries > 1 || step.in_blocks) {
            for (int64_t end = queries; end > begins; end -= block) // the longest first
                for (int64_t head = 0; head < step.kv_heads; head++)
                    items.push_back({row, head, std::max(begins, end - block), end, -1});
            continue;
        }
        // Head by head of one chunk, then the next: they lie side by side in memory.
        const int64_t seen = step.first(length - 1), begin = seen / CHUNK * CHUNK;
        const int64_t chunks = (length - begin + CHUNK - 1) / CHUNK;
        for (int64_t i = 0; i < chunks; i++)
            for (int64_t head = 0; head < step.kv_heads; head++) {
                const int64_t start = begin + i * CHUNK;
                items.push_back({row, head, std::max(start, seen), std::min(length, start + CHUNK), parts + head * chunks + i});
            }
        for (int64_t head = 0; head < step.kv_heads; head++, parts += chunks)
            merges.push_back({row, head, parts, parts + chunks, 0});
    }
    space.resize(parts * group * stride);
}

extern "C" void parrot_attention(int format, const void *query, const void *keys, const void *values, void *out,
                                 int64_t rows, const int64_t *starts, const int64_t *lengths,
                                 const int64_t *const *pages, const int64_t *begins, int64_t page_size,
                                 int64_t heads, int64_t kv_heads, int64_t dim, float scale, int64_t window, float cap,
                                 int64_t in_blocks, int threads) {
    Attention all(format, {rows, page_size, heads, kv_heads, dim, starts, lengths, pages, scale, cap, window, begins,
                           in_blocks});
    const Tensors on{query, keys, values, out};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < all.items.size(); i++) all.attend(all, all.items[i], on);
#pragma omp for
        for (size_t i = 0; i < all.merges.size(); i++) all.merge(all, all.merges[i], on);
    }
}
