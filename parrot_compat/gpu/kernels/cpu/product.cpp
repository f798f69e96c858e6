// A few rows times a matrix that oneDNN has packed: panels of 64 columns, all of K, float32 or pairs of bfloat16.
// Such products wait for memory; here nothing else is between it and the registers. The order of additions is that of
// oneDNN's product of many rows (chains of `block` along K, added one after another), so results are the same bits.
#include "rows.h"
#include "vectors.h"
#include <algorithm>

namespace {

constexpr int WIDE = PANEL, V = WIDE / LANES, MOST_ROWS = 64;

// acc += one step along K of a panel: one number of x for float32, a pair of them for bfloat16.
inline INLINED vec step(vec acc, const float *x, vec w) { return fma(all(*x), w, acc); }
constexpr int together(const float *) { return 1; }
#if defined(__AVX512BF16__)
inline INLINED vec step(vec acc, const bf16 *x, vec w) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
}
constexpr int together(const bf16 *) { return 2; }
#endif

// carry [M][WIDE] (+)= x [M][count] w [count][WIDE]
template <int M, class T> void panel(const T *x, int64_t k, const T *w, int64_t count, float *carry, bool goes_on) {
    constexpr int STEP = together((const T *)nullptr);
    constexpr int64_t AHEAD = 4096 / sizeof(T);
    vec chain[M][V];
    unrolled<M * V>([&](auto n) INLINED { chain[n / V][n % V] = vec{}; });
    if (goes_on) unrolled<M * V>([&](auto n) INLINED { chain[n / V][n % V] = load(carry + n * LANES); });
    for (int64_t i = 0; i < count; i += STEP) {
        vec weights[V];
        unrolled<V>([&](auto j) INLINED {
            const T *from = w + i * WIDE + j * LANES * STEP;
            __builtin_prefetch(from + AHEAD);
            weights[j] = load((const float *)from);
        });
        unrolled<M>([&](auto m) INLINED {
            unrolled<V>([&](auto j) INLINED { chain[m][j] = step(chain[m][j], x + m * k + i, weights[j]); });
        });
    }
    unrolled<M * V>([&](auto n) INLINED { store(carry + n * LANES, chain[n / V][n % V]); });
}

template <class T>
void panels(const T *x, int64_t k, const T *w, int64_t count, float *carry, bool goes_on, int64_t m) {
    int64_t row = 0;
    for (; row + 6 <= m; row += 6) panel<6>(x + row * k, k, w, count, carry + row * WIDE, goes_on);
    x += row * k, carry += row * WIDE;
    switch (m - row) {
    case 5: return panel<5>(x, k, w, count, carry, goes_on);
    case 4: return panel<4>(x, k, w, count, carry, goes_on);
    case 3: return panel<3>(x, k, w, count, carry, goes_on);
    case 2: return panel<2>(x, k, w, count, carry, goes_on);
    case 1: return panel<1>(x, k, w, count, carry, goes_on);
    }
}

template <class T>
void product(const T *x, const T *w, const T *bias, T *y, int64_t m, int64_t n, int64_t k, int64_t block,
             int64_t column) {
    // More rows than the registers hold read a piece of the panel again: it must be in the first cache still.
    const int64_t piece = m <= 6 ? k : 16384 / (WIDE * sizeof(T));
    float carry[MOST_ROWS * WIDE], sums[MOST_ROWS * WIDE];
    for (int64_t start = 0; start < k; start += block) {
        const int64_t end = std::min(k, start + block);
        for (int64_t at = start; at < end; at += piece)
            panels(x + at, k, w + column * k + at * WIDE, std::min(piece, end - at), carry, at > start, m);
        for (int64_t i = 0; i < m * WIDE; i += LANES)
            store(sums + i, start ? load(sums + i) + load(carry + i) : load(carry + i));
    }
    for (int64_t row = 0; row < m; row++)
        for (int64_t j = 0; j < WIDE; j += LANES) {
            vec sum = load(sums + row * WIDE + j);
            store(y + row * n + column + j, bias ? sum + load(bias + column + j) : sum);
        }
}

} // namespace

// Whether there is a product for this format on this CPU.
extern "C" int parrot_has_product(int format) {
#if defined(__AVX512BF16__)
    if (format == 1) return 1;
#endif
    return format == 0;
}

void product_panel(int format, const void *x, const void *w, const void *bias, void *y, int64_t m, int64_t n, int64_t k,
                   int64_t block, int64_t column) {
    if (format == 0)
        product((const float *)x, (const float *)w, (const float *)bias, (float *)y, m, n, k, block, column);
#if defined(__AVX512BF16__)
    if (format == 1) product((const bf16 *)x, (const bf16 *)w, (const bf16 *)bias, (bf16 *)y, m, n, k, block, column);
#endif
}

extern "C" void parrot_product(int format, const void *x, const void *w, const void *bias, void *y, int64_t m, int64_t n,
                               int64_t k, int64_t block, int threads) {
    // Dynamic: a thread that was woken late, or whose core is somebody else's for a while, holds nobody up.
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t column = 0; column < n; column += PANEL) product_panel(format, x, w, bias, y, m, n, k, block, column);
}
