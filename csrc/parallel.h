// Work sharing for every CPU kernel, declared once.  Kernels call parallel_for; who provides the
// threads (torch's pool in the module, std::thread in the sanitizer harness) defines run_on_threads.
// Denormals are flushed to zero while a kernel works, and the thread's own setting is restored.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace minicnn {

// Both are defined by whoever links the kernels.  run_on_threads calls body(context) `count` times
// (count <= num_threads()), each call on a thread of its own where it can, and returns when all have
// returned; an exception thrown by a body comes out of it.
int num_threads();
void run_on_threads(int count, void (*body)(void*), void* context);

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

// Calls f(first, last) on consecutive pieces of [begin, end), each of exactly `grain` items but for
// the last.  The pieces do not depend on the number of threads; which thread takes which piece does,
// so a piece must write only what is its own.
template <typename F>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, const F& f) {
    const std::int64_t pieces = (end - begin + grain - 1) / grain;
    if (pieces <= 0) return;
    struct Share {
        const F& f;
        std::int64_t begin, end, grain, pieces;
        std::atomic<std::int64_t> next;
    } share{f, begin, end, grain, pieces, {0}};
    auto work = [](void* context) {
        Share& s = *static_cast<Share*>(context);
        FlushDenormals guard;
        for (std::int64_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.pieces;) {
            const std::int64_t first = s.begin + i * s.grain;
            s.f(first, std::min(first + s.grain, s.end));
        }
    };
    const std::int64_t threads = pieces == 1 ? 1 : std::min<std::int64_t>(num_threads(), pieces);
    if (threads == 1) {
        work(&share);
    } else {
        run_on_threads(static_cast<int>(threads), work, &share);
    }
}

}  // namespace minicnn
