// What kernels get from the module: the stream, and scratch memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace minicnn::cuda {

cudaStream_t current_stream();

// Bytes of device memory, aligned to 16 or better, ordered with the current stream: they may be given
// back as soon as their last kernel is launched.
void* allocate_scratch(std::size_t bytes);
void free_scratch(void* data);

}  // namespace minicnn::cuda
