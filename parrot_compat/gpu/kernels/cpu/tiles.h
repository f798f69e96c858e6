// Products of small float32 matrices, a tile of the result in registers.
#pragma once
#include "vectors.h"

namespace {

// C [m][n] = A [m][k] B [k][n] (+ C): every number one chain of fused products, k ascending, whatever m is.
template <int M, int V>
void tile(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t k, bool adds) {
    vec sums[M][V];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < V; j++) sums[i][j] = adds ? load(c + i * ldc + j * LANES) : vec{};
    for (int64_t p = 0; p < k; p++) {
        vec right[V];
        for (int j = 0; j < V; j++) right[j] = load(b + p * ldb + j * LANES);
        for (int i = 0; i < M; i++) {
            vec left = all(a[i * lda + p]);
            for (int j = 0; j < V; j++) sums[i][j] = fma(left, right[j], sums[i][j]);
        }
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < V; j++) store(c + i * ldc + j * LANES, sums[i][j]);
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
    for (; j + 4 * LANES <= n; j += 4 * LANES) strip<4>(a, lda, b + j, ldb, c + j, ldc, m, k, adds);
    for (; j < n; j += LANES) strip<1>(a, lda, b + j, ldb, c + j, ldc, m, k, adds);
}

} // namespace
