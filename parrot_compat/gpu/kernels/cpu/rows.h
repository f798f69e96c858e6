// What the kernels do to one row, one panel, one chunk: each is the whole work of one thread, so that its bits hang on
// neither the other rows nor the number of threads. Every .cpp has its own and runs them in a loop of its own;
// layers.cpp runs all of them, layer after layer, in one.
#pragma once
#include <cstdint>
#include <vector>

struct Norm {
    const float *weight; // null: none
    float eps;
    int32_t rounds_first;
};

inline int64_t bytes_of(int format) { return format == 0 ? 4 : 2; }
inline const void *at(const void *p, int64_t number, int format) { return (const char *)p + number * bytes_of(format); }
inline void *at(void *p, int64_t number, int format) { return (char *)p + number * bytes_of(format); }

// elementwise.cpp
// `added`: null, or the row that x is added to and that is normalised then.
void norm_row(int format, const void *x, void *added, const Norm &by, void *out, int64_t width);
void gated_row(int format, const void *gate_up, void *out, int64_t inner, int activation);
struct Heads {
    int64_t query, kv, dim, half; // half: pairs that are turned
};
void rotate_token(int format, const Heads &heads, const void *qkv, const void *cos, const void *sin,
                  const Norm &query_norm, const Norm &key_norm, void *query, void *key, void *value);

// product.cpp: columns [column, column + PANEL) of x [m][k] w [k][n]
constexpr int64_t PANEL = 64;
void product_panel(int format, const void *x, const void *w, const void *bias, void *y, int64_t m, int64_t n, int64_t k,
                   int64_t block, int64_t column);

// attention.cpp
struct Step {
    int64_t rows, page_size, heads, kv_heads, dim;
    const int64_t *starts, *lengths, *const *pages;
    float scale, cap;      // cap 0: none
    int64_t window;        // 0: none
    const int64_t *begins; // of each row the first query that is computed; null: all are
    int64_t in_blocks;     // 1: a single query too is computed as it is among others, bit for bit

    int64_t group() const { return heads / kv_heads; }
    int64_t queries(int64_t row) const { return starts[row + 1] - starts[row]; }
    int64_t begin(int64_t row) const { return begins ? begins[row] : 0; }
    // Where in a cache keys [begin, begin + count) of a row and head lie.
    void find(int64_t row, int64_t head, int64_t begin, int64_t count, int64_t *places) const {
        int64_t page = begin / page_size, offset = begin % page_size;
        for (int64_t key = 0; key < count; key++) {
            places[key] = ((pages[row][page] * page_size + offset) * kv_heads + head) * dim;
            if (++offset == page_size) offset = 0, page++;
        }
    }
    // The first key that a query at `position` sees.
    int64_t first(int64_t position) const { return window ? position - window + 1 > 0 ? position - window + 1 : 0 : 0; }
};

struct Item {
    int64_t row, head, begin, end; // keys of a single query, or queries of a block
    int64_t place;                 // where a chunk's part goes; -1: a block of queries
};

struct Tensors {
    const void *query, *keys, *values;
    void *out;
};

// The attention of one step, cut into pieces: first all items in any order, then all merges.
struct Attention {
    Step step;
    std::vector<Item> items, merges;
    std::vector<float> space;
    void (*attend)(Attention &, const Item &, const Tensors &);
    void (*merge)(Attention &, const Item &, const Tensors &);

    Attention(int format, const Step &step);
};
