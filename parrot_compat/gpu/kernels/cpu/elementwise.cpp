// Norms, rotary positions with the store into the cache, gated activations. Every token alone, rounding where Hugging
// Face's modules round (kernels/reference/elementwise.py is the specification).
#include "rows.h"
#include "vectors.h"

namespace {

template <class T> void normalise(const T *x, T *out, int width, const Norm &by) {
    vec squares{};
    for (int i = 0; i < width; i += LANES) {
        vec part = load(x + i, width - i);
        squares = fma(part, part, squares);
    }
    vec scale = all(1.0f / std::sqrt(sum(squares) / width + by.eps));
    for (int i = 0; i < width; i += LANES) {
        vec part = load(x + i, width - i) * scale;
        if (by.rounds_first) part = rounded<T>(part);
        store(out + i, part * load(by.weight + i, width - i), width - i);
    }
}

// The pairs (i, i + half) are turned by the position's angles; what is behind them stays.
template <class T> void turn(const T *x, T *out, int dim, int half, const T *cos, const T *sin) {
    for (int i = 0; i < half; i += LANES) {
        int n = half - i;
        vec first = load(x + i, n), second = load(x + half + i, n), c = load(cos + i, n), s = load(sin + i, n);
        vec turned = rounded<T>(first * c) - rounded<T>(second * s);
        vec other = rounded<T>(second * c) + rounded<T>(first * s);
        store(out + i, turned, n);
        store(out + half + i, other, n);
    }
    if (dim > 2 * half) memcpy(out + 2 * half, x + 2 * half, (dim - 2 * half) * sizeof(T));
}

vec activated(vec x, int activation) {
    if (activation == 0) return x / (exp(-x) + 1.0f);
    if (activation == 1) {
        vec inner = (x + x * x * x * 0.044715f) * 0.797884560802865f;
        return x / (exp(inner * -2.0f) + 1.0f); // (1 + tanh(u)) / 2, without cancellation
    }
    for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678118f));
    return x;
}

// Below this many numbers a second thread costs more than it does.
constexpr int64_t WORTH_THREADS = 1 << 15;

} // namespace

void norm_row(int format, const void *x, void *added, const Norm &by, void *out, int64_t width) {
    with_format(format, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T *from = (const T *)x;
        if (added) {
            T *total = (T *)added;
            for (int i = 0; i < width; i += LANES)
                store(total + i, load(total + i, width - i) + load(from + i, width - i), width - i);
            from = total;
        }
        normalise(from, (T *)out, width, by);
    });
}

void gated_row(int format, const void *gate_up, void *out, int64_t inner, int activation) {
    with_format(format, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T *gate = (const T *)gate_up, *up = gate + inner;
        for (int i = 0; i < inner; i += LANES) {
            int n = inner - i;
            store((T *)out + i, rounded<T>(activated(load(gate + i, n), activation)) * load(up + i, n), n);
        }
    });
}

void rotate_token(int format, const Heads &heads, const void *qkv, const void *cos, const void *sin,
                  const Norm &query_norm, const Norm &key_norm, void *query, void *key, void *value) {
    with_format(format, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T *from = (const T *)qkv;
        T normed[1024];
        for (int64_t head = 0; head < heads.query + heads.kv; head++, from += heads.dim) {
            bool is_query = head < heads.query;
            T *to = is_query ? (T *)query + head * heads.dim : (T *)key + (head - heads.query) * heads.dim;
            const Norm &by = is_query ? query_norm : key_norm;
            if (by.weight) normalise(from, normed, heads.dim, by);
            turn(by.weight ? normed : from, to, heads.dim, heads.half, (const T *)cos, (const T *)sin);
        }
        memcpy(value, from, heads.kv * heads.dim * sizeof(T));
    });
}

// Whether the compiler has numbers of this format.
extern "C" int parrot_has_format(int format) {
#if HAS_F16
    return format <= 2;
#else
    return format <= 1;
#endif
}

extern "C" void parrot_norm(int format, const void *x, void *added, const float *weight, void *out, int64_t rows,
                            int64_t width, float eps, int rounds_first, int threads) {
    Norm by{weight, eps, rounds_first};
#pragma omp parallel for num_threads(threads) if (rows * width > WORTH_THREADS)
    for (int64_t row = 0; row < rows; row++)
        norm_row(format, at(x, row * width, format), added ? at(added, row * width, format) : nullptr, by,
                 at(out, row * width, format), width);
}

extern "C" void parrot_gated(int format, const void *gate_up, void *out, int64_t rows, int64_t inner, int activation,
                             int threads) {
#pragma omp parallel for num_threads(threads) if (rows * inner > WORTH_THREADS / 4)
    for (int64_t row = 0; row < rows; row++)
        gated_row(format, at(gate_up, row * 2 * inner, format), at(out, row * inner, format), inner, activation);
}

extern "C" void parrot_rotate(int format, const void *qkv, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim,
                              int64_t half, const int64_t *positions, const void *cos, const void *sin,
                              const int64_t *slots, const float *query_weight, float query_eps, const float *key_weight,
                              float key_eps, int rounds_first, void *key_cache, void *value_cache, void *query,
                              int threads) {
    Norm query_norm{query_weight, query_eps, rounds_first}, key_norm{key_weight, key_eps, rounds_first};
    int64_t width = (heads + 2 * kv_heads) * dim;
#pragma omp parallel for num_threads(threads) if (tokens * width > WORTH_THREADS)
    for (int64_t token = 0; token < tokens; token++) {
        const int64_t slot = slots[token] * kv_heads * dim, angle = positions[token] * half;
        rotate_token(format, {heads, kv_heads, dim, half}, at(qkv, token * width, format), at(cos, angle, format),
                     at(sin, angle, format), query_norm, key_norm, at(query, token * heads * dim, format),
                     at(key_cache, slot, format), at(value_cache, slot, format));
    }
}
