// Products of small float32 matrices, a tile of the result in registers.
#pragma once
#include "vectors.h"

namespace {

constexpr int STRIP = 4 * LANES; // columns of B that are read together: best where they lie side by side

// C [m][n] = A [m][k] B [k][n] (+ C): every number one chain of fused products, k ascending, whatever m is.
template <int M, int V>
void tile(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t k, bool adds) {
    vec sums[M][V];
    unrolled<M * V>([&](auto n) INLINED { sums[n / V][n % V] = vec{}; });
    if (adds) unrolled<M * V>([&](auto n) INLINED { sums[n / V][n % V] = load(c + n / V * ldc + n % V * LANES); });
    for (int64_t p = 0; p < k; p++) {
        vec right[V];
        unrolled<V>([&](auto j) INLINED { right[j] = load(b + p * ldb + j * LANES); });
        unrolled<M>([&](auto i) INLINED {
            const vec left = all(a[i * lda + p]);
            unrolled<V>([&](auto j) INLINED { sums[i][j] = fma(left, right[j], sums[i][j]); });
        });
    }
    unrolled<M * V>([&](auto n) INLINED { store(c + n / V * ldc + n % V * LANES, sums[n / V][n % V]); });
}

template <int V>
void strip(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t m, int64_t k,
           bool adds) {
    int64_t i = 0;
    for (; i + 6 <= m; i += 6) tile<6, V>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, adds);
    for (; i + 2 <= m; i += 2) tile<2, V>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, adds);
    for (; i < m; i++) tile<1, V>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, adds);
}

// n a multiple of LANES
void product(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t m, int64_t n,
             int64_t k, bool adds) {
    int64_t j = 0;
    for (; j + STRIP <= n; j += STRIP) strip<STRIP / LANES>(a, lda, b + j, ldb, c + j, ldc, m, k, adds);
    for (; j < n; j += LANES) strip<1>(a, lda, b + j, ldb, c + j, ldc, m, k, adds);
}

} // namespace
