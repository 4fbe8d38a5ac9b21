// The stream and the scratch memory of a program that runs kernels without torch.  One of its files
// includes this; with torch, module.cpp defines the same functions.
#pragma once

#include <cstdlib>

#include "cuda/core/launch.h"

namespace minicnn::cuda {
cudaStream_t current_stream() { return nullptr; }
void* allocate_scratch(std::size_t bytes) { return std::malloc(bytes); }
void free_scratch(void* data) { std::free(data); }
}  // namespace minicnn::cuda
