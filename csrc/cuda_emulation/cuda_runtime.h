// Replaces the CUDA toolkit's header of this name when a host compiler builds the .cu files.  It has the
// part of CUDA that they use.  Device pointers are host pointers, and streams do not exist.
#pragma once

#include <cmath>
#include <limits>
#include <tuple>

#include "emulation.h"
#include "recording.h"
#if defined(MINICNN_CUDA_COUNT)
#include "count.h"
#endif

#define MINICNN_CUDA_EMULATION 1

#if defined(MINICNN_CUDA_COUNT)
#define __global__ __attribute__((flatten))  // a kernel is one function, with all that it calls
#else
#define __global__
#endif
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using dim3 = emulation::Dim3;
#define threadIdx (::emulation::Machine::instance().thread_place())
#define blockIdx (::emulation::Machine::instance().block_place())
#define blockDim (::emulation::Machine::instance().block())
#define gridDim (::emulation::Machine::instance().grid())

// ---- the runtime -----------------------------------------------------------------------------------

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorLaunchFailure = 719, cudaErrorStreamCaptureUnsupported = 900 };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

namespace emulation {
inline std::string& last_error() {
    static std::string error;
    return error;
}
}  // namespace emulation

inline const char* cudaGetErrorString(cudaError_t error) {
    if (error == cudaErrorStreamCaptureUnsupported) return "the host cannot wait for what is only recorded";
    return emulation::last_error().c_str();
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
    if (emulation::Recording::open()) return cudaErrorStreamCaptureUnsupported;  // always to the host
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes, cudaStream_t) {
    if (emulation::Recording* recording = emulation::Recording::open()) {
        recording->add([=] { return std::memset(at, value, bytes), std::string(); });
        return cudaSuccess;
    }
    std::memset(at, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
    return cudaSuccess;
}

// Runs the kernel at once, or whenever a recording of it is replayed.
template <typename... Parameters, typename... Arguments>
cudaError_t emulated_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                            const Arguments&... arguments) {
    const std::tuple<std::decay_t<Parameters>...> values(arguments...);
    const auto run = [=] {
        const emulation::CountedLaunch launch(reinterpret_cast<const void*>(kernel),
                                              std::size_t(grid.x) * grid.y * grid.z);
        return emulation::Machine::instance().run(grid, block, shared_bytes, [&] {
            std::apply([&](const auto&... each) { emulation::call_kernel<Parameters...>(kernel, each...); },
                       values);
        });
    };
    if (emulation::Recording* recording = emulation::Recording::open()) {
        recording->add(run);
        return cudaSuccess;
    }
    emulation::last_error() = run();
    return emulation::last_error().empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

// ---- in kernels ------------------------------------------------------------------------------------

inline void __syncthreads(int line = __builtin_LINE()) { emulation::Machine::instance().barrier(line); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, int line = __builtin_LINE()) {
    emulation::Machine::instance().warp_barrier(mask, line);
}
inline void __threadfence() {}

namespace emulation {

inline int lane() {
    const Dim3 &at = threadIdx, &size = blockDim;
    return int((at.x + size.x * (at.y + size.y * at.z)) % warp_size);
}

template <typename T>
T shuffle(unsigned mask, T value, int source, int line) {
    const NotCounted pause;
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = Machine::instance().exchange(mask, bits, source, line);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int first = emulation::lane() / width * width;
    return emulation::shuffle(mask, value, first + source % width, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
    const emulation::NotCounted pause;
    const int lane = emulation::lane(), other = lane ^ lanes;
    return emulation::shuffle(mask, value, other / width == lane / width ? other : lane, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, int line = __builtin_LINE()) {
    const emulation::NotCounted pause;
    const int lane = emulation::lane(), other = lane + by;
    return emulation::shuffle(mask, value, other / width == lane / width ? other : lane, line);
}
inline unsigned __ballot_sync(unsigned mask, bool yes, int line = __builtin_LINE()) {
    return unsigned(emulation::Machine::instance().exchange(mask, yes, emulation::Machine::vote, line));
}
inline bool __any_sync(unsigned mask, bool yes, int line = __builtin_LINE()) {
    return __ballot_sync(mask, yes, line) != 0;
}
inline bool __all_sync(unsigned mask, bool yes, int line = __builtin_LINE()) {
    return __ballot_sync(mask, yes, line) == mask;
}

// Atomics are real ones, so that ThreadSanitizer recognises them.
template <typename T>
MINICNN_NOT_INSTRUMENTED T atomicAdd(T* at, T value) {
    const emulation::NotCounted pause;
    emulation::count_access(at, sizeof(T), emulation::Access::atomic, MINICNN_COUNTED_PLACE);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
// Adds one, or starts at 0 again after `last`.
MINICNN_NOT_INSTRUMENTED inline unsigned atomicInc(unsigned* at, unsigned last) {
    const emulation::NotCounted pause;
    emulation::count_access(at, sizeof *at, emulation::Access::atomic, MINICNN_COUNTED_PLACE);
    unsigned old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, old >= last ? 0 : old + 1, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    return old;
}

// The compiler joins nothing across a call.
__attribute__((noinline)) inline float __fmul_rn(float a, float b) { return a * b; }
__attribute__((noinline)) inline float __fadd_rn(float a, float b) { return a + b; }
__attribute__((noinline)) inline double __dmul_rn(double a, double b) { return a * b; }
__attribute__((noinline)) inline double __dadd_rn(double a, double b) { return a + b; }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
