// Threads that go through a step together. Between two kernels they meet at a barrier that spins for a moment and then
// sleeps. To put threads to sleep and wake them between kernels of some microseconds costs more than the kernels do; to
// spin for long would take the cores from whoever else needs them.
#pragma once
#include <atomic>
#include <climits>
#include <cstdint>
#include <thread>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

} // namespace
