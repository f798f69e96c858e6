// All layers of a step in one parallel region, by the kernels of the other files on the same rows and panels: the
// same bits. Few tokens: the threads share each kernel. Many: each thread takes some of them through all kernels from
// one attention to the next; what lies between stays in its second cache, and nobody waits for anybody.
#include "rows.h"
#include "team.h"
#include <algorithm>
#include <cstring>

extern "C" int omp_get_num_threads();
extern "C" int omp_get_thread_num();

// As in layers.py
struct Product {
    const void *weight, *bias;
    int64_t out, in, block;
};
struct Layer {
    Norm before_attention, query, key, after_attention, before_mlp, after_mlp; // without weight: there is none
    Product qkv, output, gate_up, down;
    void *keys, *values;
    int64_t rope, window;
};
struct Model {
    int64_t format, layers, heads, kv_heads, dim, width, inner, activation, in_blocks;
    float scale, cap;
    const Layer *layer;
};
struct Rope {
    const int64_t *positions;
    const void *cos, *sin;
    int64_t half;
};
struct Now {
    int64_t tokens, rows, page_size, threads;
    int64_t tile; // tokens that a thread takes at a time; 0: the threads share each kernel
    const int64_t *starts, *lengths, *const *pages, *slots;
    const Rope *rope;
    void *x, *mixed, *query, *attended;   // [tokens][..]
    void *normed, *qkv, *gate_up, *gated; // [tokens][..], or of each thread [tile][..]
    // What is wanted behind the last layer: all tokens, or (`begins` is not null) these, which are put into `last`.
    const int64_t *begins, *wanted;
    int64_t wanted_tokens;
    void *last; // [wanted_tokens][width]
};

namespace {

// Some tokens of a step, and where their numbers are.
struct Rows {
    int64_t first, tokens;
    void *x, *mixed, *query, *attended, *normed, *qkv, *gate_up, *gated; // of `first` and those behind it
};

// Rows on their way. `Each` does something for every item: it shares them among threads, or does them all.
template <class Each> struct Pass {
    const Model &model;
    const Now &now;
    const Rows &rows;
    Each each;
    const int format = int(model.format);
    const int64_t queries = model.heads * model.dim, keys = model.kv_heads * model.dim;

    void *row(void *p, int64_t token, int64_t width) const { return at(p, token * width, format); }

    void multiply(const Product &by, const void *x, void *y) {
        each(by.out / PANEL, [&](int64_t panel) {
            product_panel(format, x, by.weight, by.bias, y, rows.tokens, by.out, by.in, by.block, panel * PANEL);
        });
    }

    void begin(const Norm &by) {
        each(rows.tokens, [&](int64_t token) {
            norm_row(format, row(rows.x, token, model.width), nullptr, by, row(rows.normed, token, model.width),
                     model.width);
        });
    }

    // x += mixed, after a norm of its own if it has one; normed = the norm of that for what comes next, if there is.
    void add(const Norm &own, const Norm *next) {
        if (!own.weight && !next) return;
        each(rows.tokens, [&](int64_t token) {
            void *mixed = row(rows.mixed, token, model.width);
            if (own.weight) norm_row(format, mixed, nullptr, own, mixed, model.width);
            if (next)
                norm_row(format, mixed, row(rows.x, token, model.width), *next, row(rows.normed, token, model.width),
                         model.width);
        });
    }

    // From normed states to queries, and keys and values in their slots.
    void enter(const Layer &by) {
        multiply(by.qkv, rows.normed, rows.qkv);
        const Rope &rope = now.rope[by.rope];
        each(rows.tokens, [&](int64_t token) {
            const int64_t number = rows.first + token;
            const int64_t angle = rope.positions[number] * rope.half, slot = now.slots[number] * keys;
            rotate_token(format, {model.heads, model.kv_heads, model.dim, rope.half},
                         row(rows.qkv, token, queries + 2 * keys), at(rope.cos, angle, format),
                         at(rope.sin, angle, format), by.query, by.key, row(rows.query, token, queries),
                         at(by.keys, slot, format), at(by.values, slot, format));
        });
    }

    // From what attention gave to normed states for the next layer.
    void leave(const Layer &by, const Layer *next) {
        multiply(by.output, rows.attended, rows.mixed);
        add(by.after_attention, &by.before_mlp);
        multiply(by.gate_up, rows.normed, rows.gate_up);
        each(rows.tokens, [&](int64_t token) {
            gated_row(format, row(rows.gate_up, token, 2 * model.inner), row(rows.gated, token, model.inner),
                      model.inner, int(model.activation));
        });
        multiply(by.down, rows.gated, rows.mixed);
        add(by.after_mlp, next ? &next->before_attention : nullptr);
    }
};

template <class Each> Pass<Each> pass(const Model &model, const Now &now, const Rows &rows, Each each) {
    return {model, now, rows, each};
}

// One thread's part of a step.
struct Run {
    const Model &model;
    const Now &now;
    Team &team;
    std::vector<Attention> &attentions;
    const std::vector<int> &which; // of them, by layer
    int patience = MOST_SPINS;

    const Layer *layer(int64_t number) const { return number < model.layers ? model.layer + number : nullptr; }

    void attend(int64_t number) {
        Attention &attention = attentions[which[number]];
        const Tensors on{now.query, layer(number)->keys, layer(number)->values, now.attended};
        const auto &items = attention.items, &merges = attention.merges;
        team.share(patience, items.size(), [&](int64_t i) { attention.attend(attention, items[i], on); });
        if (!merges.empty())
            team.share(patience, merges.size(), [&](int64_t i) { attention.merge(attention, merges[i], on); });
    }

    void together() {
        const Rows rows{0,            now.tokens, now.x,   now.mixed,   now.query,
                        now.attended, now.normed, now.qkv, now.gate_up, now.gated};
        auto all = pass(model, now, rows, [&](int64_t items, auto body) { team.share(patience, items, body); });
        all.begin(model.layer->before_attention);
        for (int64_t i = 0; i < model.layers; i++) {
            all.enter(*layer(i));
            attend(i);
            all.leave(*layer(i), layer(i + 1));
        }
    }

    // body(the pass of some tokens, by this thread alone), until `tokens` are through.
    template <class F> void by_tiles(int64_t tokens, F body) {
        team.share(patience, (tokens + now.tile - 1) / now.tile, [&](int64_t item) {
            const int64_t first = item * now.tile, queries = model.heads * model.dim;
            const int64_t mine = omp_get_thread_num() * now.tile;
            auto of = [&](void *p, int64_t number, int64_t width) { return at(p, number * width, int(model.format)); };
            const Rows rows{first, std::min(now.tile, tokens - first), of(now.x, first, model.width),
                            of(now.mixed, first, model.width), of(now.query, first, queries),
                            of(now.attended, first, queries), of(now.normed, mine, model.width),
                            of(now.qkv, mine, queries + 2 * model.kv_heads * model.dim),
                            of(now.gate_up, mine, 2 * model.inner), of(now.gated, mine, model.inner)};
            body(rows);
        });
    }

    template <class F> void alone(const Rows &rows, F body) {
        auto one = pass(model, now, rows, [](int64_t items, auto each) {
            for (int64_t i = 0; i < items; i++) each(i);
        });
        body(one);
    }

    void apart() {
        by_tiles(now.tokens, [&](const Rows &rows) {
            alone(rows, [&](auto &tile) { tile.begin(model.layer->before_attention), tile.enter(*model.layer); });
        });
        for (int64_t i = 0; i + 1 < model.layers; i++) {
            attend(i);
            by_tiles(now.tokens, [&](const Rows &rows) {
                alone(rows, [&](auto &tile) { tile.leave(*layer(i), layer(i + 1)), tile.enter(*layer(i + 1)); });
            });
        }
        const Layer &last = *layer(model.layers - 1);
        attend(model.layers - 1);
        if (!now.begins)
            return by_tiles(now.tokens, [&](const Rows &rows) {
                alone(rows, [&](auto &tile) { tile.leave(last, nullptr); });
            });
        by_tiles(now.wanted_tokens, [&](Rows rows) {
            const int64_t width = model.width * bytes_of(int(model.format));
            const int64_t queries = model.heads * model.dim * bytes_of(int(model.format));
            rows.x = (char *)now.last + rows.first * width, rows.attended = rows.qkv; // that is free now
            for (int64_t i = 0; i < rows.tokens; i++) {
                const int64_t token = now.wanted[rows.first + i];
                memcpy((char *)rows.x + i * width, (char *)now.x + token * width, width);
                memcpy((char *)rows.attended + i * queries, (char *)now.attended + token * queries, queries);
            }
            alone(rows, [&](auto &tile) { tile.leave(last, nullptr); });
        });
    }
};

} // namespace

// Most tokens of a step for which this is the fastest way. With shorter vectors oneDNN multiplies many rows faster.
extern "C" int64_t parrot_most_tokens(int64_t few) {
#if defined(__AVX512F__)
    return INT64_MAX;
#else
    return few;
#endif
}

// x [tokens][width]: embeddings in; what enters the last layer's MLP out. `mixed`: what that adds to it.
extern "C" void parrot_layers(const Model *model, const Now *now) {
    std::vector<Attention> attentions; // one for each length of window, and of the last layer where not all are wanted
    std::vector<int> which;
    for (int64_t i = 0; i < model->layers; i++) {
        const int64_t window = model->layer[i].window;
        const int64_t *begins = i + 1 < model->layers ? nullptr : now->begins;
        auto fits = [&](const Attention &each) { return each.step.window == window && each.step.begins == begins; };
        auto found = std::find_if(attentions.begin(), attentions.end(), fits);
        which.push_back(int(found - attentions.begin()));
        if (found == attentions.end())
            attentions.emplace_back(int(model->format),
                                    Step{now->rows, now->page_size, model->heads, model->kv_heads, model->dim,
                                         now->starts, now->lengths, now->pages, model->scale, model->cap, window,
                                         begins, model->in_blocks});
    }
    Team team;
#pragma omp parallel num_threads(int(now->threads))
    {
#pragma omp single
        team.threads = omp_get_num_threads(); // all wait for it
        Run run{*model, *now, team, attentions, which};
        now->tile ? run.apart() : run.together();
    }
}
