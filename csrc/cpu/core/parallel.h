// How every CPU kernel shares its work between threads.  Kernels call parallel_for; whoever links them says
// whose threads these are, and defines run_on_threads: mostly those of helpers.h.
// While a kernel computes, denormal numbers count as zero; afterwards the thread has its own setting again.
// A kernel that only selects or moves values keeps them, so that it compares what it was given.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace minicnn {

// They are defined by whoever links the kernels.  run_on_threads calls body(context, 0), and body(context,
// i) for those i < count whose threads come in time, where count <= num_threads(); it returns when these
// calls have returned.  The same i mostly has the same thread in every call.  An exception thrown by a body
// comes out of it.
int num_threads();
void run_on_threads(int count, void (*body)(void*, int), void* context);
// Work of so many threads comes soon: whoever waits for it may wake.
void rouse_threads(int count);

// How many threads the kernels that this thread calls may take, as long as the object lives.
class ThreadLimit {
  public:
    explicit ThreadLimit(int most) : outer_(limit()) { limit() = std::min(most, outer_); }
    ~ThreadLimit() { limit() = outer_; }
    ThreadLimit(const ThreadLimit&) = delete;
    ThreadLimit& operator=(const ThreadLimit&) = delete;

    static int available() { return limit() == 1 ? 1 : std::min(limit(), num_threads()); }

  private:
    static int& limit() {
        thread_local int most = 1 << 30;
        return most;
    }
    int outer_;
};

// Flush-to-zero and denormals-are-zero for the calling thread, as long as the object lives.
class FlushDenormals {
  public:
    FlushDenormals() : saved_(read()) { write(saved_ | mask); }
    ~FlushDenormals() { write(saved_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
#if defined(__SSE__)
    using Control = unsigned int;
    static constexpr Control mask = 0x8040;  // MXCSR: FTZ is bit 15, DAZ is bit 6
    static Control read() { return __builtin_ia32_stmxcsr(); }
    static void write(Control control) { __builtin_ia32_ldmxcsr(control); }
#elif defined(__aarch64__)
    using Control = std::uint64_t;
    static constexpr Control mask = Control{1} << 24;  // FPCR: FZ is bit 24
    static Control read() {
        Control control;
        asm volatile("mrs %0, fpcr" : "=r"(control));
        return control;
    }
    static void write(Control control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else
    using Control = int;
    static constexpr Control mask = 0;
    static Control read() { return 0; }
    static void write(Control) {}
#endif
    Control saved_;
};

// What denormal numbers are to a kernel.  Sums and products are faster where they count as zero.
enum class Denormals { zero, kept };

// The thread's own setting, for kernels that keep them.
struct OwnSetting {
    OwnSetting() {}
};

// How many tasks of so many multiplications and additions each make a piece of work that is worth waking a
// thread for.
inline std::int64_t grain_for(double flops_per_task) {
    constexpr double worthwhile_flops = 5e5;
    return static_cast<std::int64_t>(std::min(1e12, 1 + worthwhile_flops / std::max(1.0, flops_per_task)));
}

// Calls f(first, last) on consecutive pieces of [begin, end).  Each has exactly `grain` items, except the
// last one, which may have fewer.  The pieces do not depend on the number of threads.  Which thread takes
// which piece does, so a piece must write only what is its own.
//
// Each thread has a share of consecutive pieces, and helps with the shares of others when its own is
// done.  So a thread mostly reads what it wrote in the operation before: another core's cache can be far
// away.
template <Denormals denormals = Denormals::zero, typename F>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, const F& f) {
    const std::int64_t pieces = (end - begin + grain - 1) / grain;
    if (pieces <= 0) return;
    constexpr int most_threads = 64;
    struct alignas(64) Share {
        std::atomic<std::int64_t> next;
        std::int64_t end;
    };
    struct Work {
        const F& f;
        std::int64_t begin, end, grain;
        int threads;
        Share shares[most_threads];
    } work{f, begin, end, grain, 1, {}};
    work.threads = static_cast<int>(
        std::min<std::int64_t>({pieces, most_threads, pieces == 1 ? 1 : ThreadLimit::available()}));
    for (int i = 0; i < work.threads; ++i) {
        work.shares[i].next = pieces * i / work.threads;
        work.shares[i].end = pieces * (i + 1) / work.threads;
    }
    auto run = [](void* context, int self) {
        Work& w = *static_cast<Work*>(context);
        const std::conditional_t<denormals == Denormals::zero, FlushDenormals, OwnSetting> setting;
        for (int i = 0; i < w.threads; ++i) {
            Share& share = w.shares[(self + i) % w.threads];
            for (std::int64_t piece;
                 (piece = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
                const std::int64_t first = w.begin + piece * w.grain;
                w.f(first, std::min(first + w.grain, w.end));
            }
        }
    };
    if (work.threads == 1) {
        run(&work, 0);
    } else {
        run_on_threads(work.threads, run, &work);
    }
}

}  // namespace minicnn
