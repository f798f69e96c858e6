// Sixteen floats at a time, and the number formats of caches and activations. Plain g++ vectors: the compiler splits
// them where the CPU's are shorter. Products and sums are never fused unless `fma` says so.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int LANES = 16;
typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t shorts __attribute__((vector_size(32)));
#if defined(__FLT16_MANT_DIG__) // g++ before 12 (x86) and 13 (ARM) has no such numbers
#define HAS_F16 1
typedef _Float16 f16;
typedef _Float16 halves __attribute__((vector_size(32)));
#endif

struct bf16 {
    uint16_t bits;
};
static inline vec all(float x) { return x - vec{}; }

static inline vec fma(vec a, vec b, vec c) {
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    vec r;
    for (int i = 0; i < LANES; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

// The sums of neighbours: eight of a, then eight of b.
static inline vec pairs(vec a, vec b) {
    const ivec even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

static inline float sum(vec a) {
    for (int i = 0; i < 4; i++) a = pairs(a, a);
    return a[0];
}

static inline vec max(vec a, vec b) { return a > b ? a : b; }

static inline float largest(vec a) {
    const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int apart = LANES / 2; apart; apart /= 2) a = max(a, __builtin_shuffle(a, lane ^ apart));
    return a[0];
}

// body(0), body(1), .. body(N - 1), each number a constant. Arrays that are indexed by nothing else stay in registers;
// of loops gcc unrolls them when it has decided already that they lie in memory.
#define INLINED __attribute__((always_inline))
template <class F, int... I> static inline INLINED void unrolled(F body, std::integer_sequence<int, I...>) {
    (body(std::integral_constant<int, I>()), ...);
}
template <int N, class F> static inline INLINED void unrolled(F body) {
    unrolled(body, std::make_integer_sequence<int, N>());
}

// Rows become columns.
static inline INLINED void transpose(vec (&block)[LANES]) {
    const ivec low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    unrolled<4>([&](auto) INLINED { // interleave rows i and i + 8: a perfect shuffle each time
        vec next[LANES];
        unrolled<LANES / 2>([&](auto i) INLINED {
            next[2 * i] = __builtin_shuffle(block[i], block[i + LANES / 2], low);
            next[2 * i + 1] = __builtin_shuffle(block[i], block[i + LANES / 2], low + 8);
        });
        unrolled<LANES>([&](auto i) INLINED { block[i] = next[i]; });
    });
}

// ---- formats

static inline vec widen(uvec bits) { return (vec)(bits << 16); }

static inline uvec bf16_bits(vec x) {
    uvec bits = (uvec)x;
    uvec even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (ivec)(x != x) ? (uvec)(ivec{} + 0x7fc0) : even;
}

static inline vec load(const float *p) {
    vec r;
    memcpy(&r, p, sizeof r);
    return r;
}
static inline vec load(const bf16 *p) {
    shorts s;
    memcpy(&s, p, sizeof s);
    return widen(__builtin_convertvector(s, uvec));
}
#if HAS_F16
static inline vec load(const f16 *p) {
    halves h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, vec);
}
#endif
static inline void store(float *p, vec x) { memcpy(p, &x, sizeof x); }
static inline void store(bf16 *p, vec x) {
    shorts s = __builtin_convertvector(bf16_bits(x), shorts);
    memcpy(p, &s, sizeof s);
}
#if HAS_F16
static inline void store(f16 *p, vec x) {
    halves h = __builtin_convertvector(x, halves);
    memcpy(p, &h, sizeof h);
}
#endif

// The first n numbers (the rest is zero), and storing them.
template <class T> static inline vec load(const T *p, int n) {
    if (n >= LANES) return load(p);
    if (n <= 0) return vec{};
    T part[LANES] = {};
    memcpy(part, p, n * sizeof(T));
    return load(part);
}
template <class T> static inline void store(T *p, vec x, int n) {
    if (n >= LANES) return store(p, x);
    if (n <= 0) return;
    T part[LANES];
    store(part, x);
    memcpy(p, part, n * sizeof(T));
}

// What is left of x once it has been stored as T.
template <class T> static inline vec rounded(vec x);
template <> inline vec rounded<float>(vec x) { return x; }
template <> inline vec rounded<bf16>(vec x) { return widen(bf16_bits(x)); }
#if HAS_F16
template <> inline vec rounded<f16>(vec x) { return __builtin_convertvector(__builtin_convertvector(x, halves), vec); }
#endif

// ---- functions

static inline vec exp(vec x) {
    // 2^n * e^r with |r| <= ln(2) / 2; the polynomial is good to an ulp. Far below zero it is zero.
    const vec least = all(-87.3f), most = all(88.0f);
    ivec is_zero = x < least;
    x = is_zero ? least : x;
    x = x > most ? most : x;
    vec scaled = fma(x, all(1.44269504f), all(12582912.0f)); // its low bits are the nearest integer
    vec n = scaled - all(12582912.0f);
    vec r = fma(n, all(-0.693145752f), x);
    r = fma(n, all(-1.42860677e-6f), r);
    vec p = all(1.98756915e-4f);
    p = fma(p, r, all(1.39819995e-3f));
    p = fma(p, r, all(8.33345205e-3f));
    p = fma(p, r, all(4.16657962e-2f));
    p = fma(p, r, all(1.66666657e-1f));
    p = fma(p, r, all(0.5f));
    p = fma(p, r * r, r + 1.0f);
    vec power = (vec)(((uvec)scaled << 23) + 0x3f800000); // 2^n: nothing but those low bits is left
    return is_zero ? vec{} : p * power;
}

static inline vec tanh(vec x) {
    vec z = x * x;
    vec p = fma(all(-5.70498872745e-3f), z, all(2.06390887954e-2f));
    p = fma(p, z, all(-5.37397155531e-2f));
    p = fma(p, z, all(1.33314422036e-1f));
    p = fma(p, z, all(-3.33332819422e-1f));
    vec near = fma(p * z, x, x);
    vec bounded = x > all(15.0f) ? all(15.0f) : x < all(-15.0f) ? all(-15.0f) : x;
    vec far = 1.0f - 2.0f / (exp(bounded * 2.0f) + 1.0f);
    return z < all(0.390625f) ? near : far;
}

template <class F> static inline void with_format(int format, F body) {
    if (format == 0) body((float *)nullptr);
    if (format == 1) body((bf16 *)nullptr);
#if HAS_F16
    if (format == 2) body((f16 *)nullptr);
#endif
}
