// The same for CUDA kernels that the emulation runs on the CPU: `launch`, and shared memory.
#pragma once

#include <cstdlib>

#include "cuda/core/launch.h"
#include "task.h"

namespace minicnn::cuda {
inline cudaStream_t current_stream() { return nullptr; }
inline void* allocate_scratch(std::size_t bytes) { return std::malloc(bytes); }
inline void free_scratch(void* data) { std::free(data); }
}  // namespace minicnn::cuda

using minicnn::cuda::launch;
