// The one way to launch a kernel.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "device.h"

namespace minicnn::cuda {

// ---- launching -------------------------------------------------------------------------------------

template <typename T>
class Scratch {
  public:
    explicit Scratch(std::int64_t count) : data_(allocate_scratch(std::size_t(count) * sizeof(T))) {}
    ~Scratch() { free_scratch(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return static_cast<T*>(data_); }

  private:
    void* data_;
};

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Launches kernel(arguments...), unless the grid is empty.  Every kernel of the project is launched here.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    constexpr unsigned most_blocks = 65535;  // along y or z
    if (const unsigned wanted = grid.y > grid.z ? grid.y : grid.z; wanted > most_blocks) {
        throw std::invalid_argument("[cuda] blocks of a kernel: expected at most " +
                                    std::to_string(most_blocks) + ", got " + std::to_string(wanted));
    }
    constexpr std::size_t granted = 48 * 1024;  // bytes; a kernel must ask for more
    if (shared_bytes > granted) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
              "CUDA shared memory");
    }
#if defined(MINICNN_CUDA_EMULATION)
    static_cast<void>(stream);
    check(emulated_launch(kernel, grid, block, shared_bytes, arguments...), "CUDA emulation");
#else
    // clang-format off: it would write < < <
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
    // clang-format on
    check(cudaGetLastError(), "CUDA kernel launch");
#endif
}

// ---- shared memory ---------------------------------------------------------------------------------

// MINICNN_SHARED(float, tile, 32 * 33) declares an array that the threads of a block share.
// MINICNN_DYNAMIC_SHARED(float, tile) declares a pointer to the shared memory whose size the launch gives.
#if defined(MINICNN_CUDA_EMULATION)
#define MINICNN_SHARED(type, name, count) \
    static char name##_key;               \
    type* const name =                    \
        static_cast<type*>(emulation::Machine::instance().shared(&name##_key, sizeof(type) * (count)))
#define MINICNN_DYNAMIC_SHARED(type, name) \
    type* const name = static_cast<type*>(emulation::Machine::instance().dynamic_shared())
#else
#define MINICNN_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define MINICNN_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char minicnn_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(minicnn_dynamic_shared)
#endif

}  // namespace minicnn::cuda
