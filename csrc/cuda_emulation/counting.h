// What the emulation tells the counter (count.h).  Only a build with MINICNN_CUDA_COUNT has one; elsewhere
// nothing is left of this file.
#pragma once

#include <cstddef>

namespace emulation {

enum class Access { read, write, atomic };

#if defined(MINICNN_CUDA_COUNT)

#define MINICNN_NOT_INSTRUMENTED __attribute__((noinline, no_sanitize("thread"), no_sanitize_coverage))

// Whether a kernel's own code runs.
inline bool counting = false;

// While an object of this class exists, nothing is counted.  Threads change only while one exists.
class NotCounted {
  public:
    MINICNN_NOT_INSTRUMENTED NotCounted() : before_(counting) { counting = false; }
    MINICNN_NOT_INSTRUMENTED ~NotCounted() { counting = before_; }
    NotCounted(const NotCounted&) = delete;

  private:
    bool before_;
};

// Counts what an instruction does that is a function here.  `place` is where the kernel calls it.
void count_access(const void* at, std::size_t bytes, Access access, const void* place);
// A launch of a kernel, as long as the object exists.
class CountedLaunch {
  public:
    CountedLaunch(const void* kernel, std::size_t blocks);
    ~CountedLaunch();
    CountedLaunch(const CountedLaunch&) = delete;
};
// Whether a block is run: the counts of a few blocks of a large grid may do.
bool runs(std::size_t block, std::size_t blocks);

// Calls a kernel, whose parameters a GPU keeps in a memory of their own.
template <typename... Parameters>
MINICNN_NOT_INSTRUMENTED void call_kernel(void (*kernel)(Parameters...), const Parameters&... parameters) {
    counting = true;
    kernel(parameters...);
    counting = false;
}

#define MINICNN_COUNTED_PLACE __builtin_return_address(0)

#else

#define MINICNN_NOT_INSTRUMENTED

struct NotCounted {
    NotCounted() {}
    ~NotCounted() {}
};
inline void count_access(const void*, std::size_t, Access, const void*) {}
struct CountedLaunch {
    CountedLaunch(const void*, std::size_t) {}
    ~CountedLaunch() {}
};
inline bool runs(std::size_t, std::size_t) { return true; }
template <typename... Parameters>
void call_kernel(void (*kernel)(Parameters...), const Parameters&... parameters) {
    kernel(parameters...);
}
#define MINICNN_COUNTED_PLACE nullptr

#endif

}  // namespace emulation
