// What the module gives to kernels: the stream that they run in, and scratch memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace minicnn::cuda {

cudaStream_t current_stream();

// Device memory, aligned to 16 bytes or more.  It is reused in the order of the current stream.  So it may
// be freed as soon as the last kernel that uses it is launched, before that kernel has run.
void* allocate_scratch(std::size_t bytes);
void free_scratch(void* data);

}  // namespace minicnn::cuda
