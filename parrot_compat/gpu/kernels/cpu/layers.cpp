// All layers of a step of few tokens in one parallel region, by the kernels of the other files on the same rows and
// panels: the same bits. Between two kernels the threads meet at a barrier that spins for a moment and then sleeps. To
// put threads to sleep and wake them between kernels of some microseconds costs more than the kernels do; to spin for
// long would take the cores from whoever else needs them.
#include "rows.h"
#include <atomic>
#include <climits>
#include <thread>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

extern "C" int omp_get_num_threads();

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
    int64_t format, layers, heads, kv_heads, dim, width, inner, activation;
    float scale, cap;
    const Layer *layer;
};
struct Rope {
    const int64_t *positions;
    const void *cos, *sin;
    int64_t half;
};
struct Few {
    int64_t tokens, rows, page_size, threads;
    const int64_t *starts, *lengths, *const *pages, *slots;
    const Rope *rope;
    void *x, *mixed, *normed, *qkv, *query, *attended, *gate_up, *gated; // [tokens][..]
};

namespace {

constexpr int MOST_SPINS = 1024, LEAST_SPINS = 8; // 25 us, about, and next to nothing

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// A thread that wakes is put on a free core. One that yields stays on the core of the thread it waits for, which was
// measured: both threads of a step on one of two idle cores.
inline void sleep_in(std::atomic<int> &round, int now) {
#if defined(__linux__)
    syscall(SYS_futex, &round, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
#else
    std::this_thread::yield();
#endif
}

inline void wake_all_in(std::atomic<int> &round) {
#if defined(__linux__)
    syscall(SYS_futex, &round, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
}

class Team {
  public:
    int threads = 1;

    // Item by item, each by whoever is free. All of them are done when it returns. `patience`: the thread's own.
    template <class F> void share(int &patience, int64_t items, F body) {
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) body(item);
        meet(patience);
    }

  private:
    // Where spinning was in vain (the others have no core) less of it is done the next time.
    void meet(int &patience) {
        const int now = round.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived.store(0, std::memory_order_relaxed);
            next.store(0, std::memory_order_relaxed);
            round.store(now + 1);
            if (asleep.load()) wake_all_in(round);
            return;
        }
        for (int spins = 0; spins < patience; spins++) {
            if (round.load(std::memory_order_acquire) != now) {
                patience = patience < MOST_SPINS ? 2 * patience : MOST_SPINS;
                return;
            }
            pause();
        }
        patience = patience > LEAST_SPINS ? patience / 2 : LEAST_SPINS;
        asleep.fetch_add(1);
        while (round.load() == now) sleep_in(round, now);
        asleep.fetch_sub(1);
    }

    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int> arrived{0}, asleep{0};
    alignas(64) std::atomic<int> round{0};
};

struct Run {
    const Model &model;
    const Few &step;
    Team &team;
    const int format = int(model.format);
    int patience = MOST_SPINS;

    void *row(void *p, int64_t token, int64_t width) const { return at(p, token * width, format); }

    void multiply(const Product &by, const void *x, void *y) {
        team.share(patience, by.out / PANEL, [&](int64_t panel) {
            product_panel(format, x, by.weight, by.bias, y, step.tokens, by.out, by.in, by.block, panel * PANEL);
        });
    }

    // x += mixed, after a norm of its own if it has one; normed = the norm of that for what comes next, if anything does.
    void add(const Norm &own, const Norm *next) {
        team.share(patience, step.tokens, [&](int64_t token) {
            void *mixed = row(step.mixed, token, model.width);
            if (own.weight) norm_row(format, mixed, nullptr, own, mixed, model.width);
            if (next)
                norm_row(format, mixed, row(step.x, token, model.width), *next, row(step.normed, token, model.width),
                         model.width);
        });
    }

    void layer(const Layer &by, Attention &attention, const Norm *next) {
        const int64_t queries = model.heads * model.dim, keys = model.kv_heads * model.dim;
        multiply(by.qkv, step.normed, step.qkv);
        const Rope &rope = step.rope[by.rope];
        team.share(patience, step.tokens, [&](int64_t token) {
            const int64_t angle = rope.positions[token] * rope.half, slot = step.slots[token] * keys;
            rotate_token(format, {model.heads, model.kv_heads, model.dim, rope.half},
                         row(step.qkv, token, queries + 2 * keys), at(rope.cos, angle, format),
                         at(rope.sin, angle, format), by.query, by.key, row(step.query, token, queries),
                         at(by.keys, slot, format), at(by.values, slot, format));
        });
        const Tensors on{step.query, by.keys, by.values, step.attended};
        team.share(patience, attention.items.size(), [&](int64_t i) { attention.attend(attention, attention.items[i], on); });
        if (!attention.merges.empty())
            team.share(patience, attention.merges.size(), [&](int64_t i) { attention.merge(attention, attention.merges[i], on); });
        multiply(by.output, step.attended, step.mixed);
        add(by.after_attention, &by.before_mlp);
        multiply(by.gate_up, step.normed, step.gate_up);
        team.share(patience, step.tokens, [&](int64_t token) {
            gated_row(format, row(step.gate_up, token, 2 * model.inner), row(step.gated, token, model.inner), model.inner,
                      int(model.activation));
        });
        multiply(by.down, step.gated, step.mixed);
        if (next || by.after_mlp.weight) add(by.after_mlp, next);
    }

    void layers(std::vector<Attention> &attentions, const std::vector<int> &which) {
        team.share(patience, step.tokens, [&](int64_t token) {
            norm_row(format, row(step.x, token, model.width), nullptr, model.layer->before_attention,
                     row(step.normed, token, model.width), model.width);
        });
        for (int64_t i = 0; i < model.layers; i++)
            layer(model.layer[i], attentions[which[i]],
                  i + 1 < model.layers ? &model.layer[i + 1].before_attention : nullptr);
    }
};

} // namespace

// x [tokens][width]: embeddings in; what enters the last layer's MLP out. `mixed`: what that adds to it.
extern "C" void parrot_layers(const Model *model, const Few *step) {
    std::vector<Attention> attentions; // one for each length of window
    std::vector<int> which;
    for (int64_t i = 0; i < model->layers; i++) {
        const int64_t window = model->layer[i].window;
        size_t kind = 0;
        while (kind < attentions.size() && attentions[kind].step.window != window) kind++;
        if (kind == attentions.size())
            attentions.emplace_back(int(model->format),
                                    Step{step->rows, step->page_size, model->heads, model->kv_heads, model->dim,
                                         step->starts, step->lengths, step->pages, model->scale, model->cap, window});
        which.push_back(int(kind));
    }
    Team team;
#pragma omp parallel num_threads(int(step->threads))
    {
#pragma omp single
        team.threads = omp_get_num_threads(); // all wait for it
        Run{*model, *step, team}.layers(attentions, which);
    }
}
