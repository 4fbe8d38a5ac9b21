// Whether float products may round their operands to TF32 for the tensor cores; off unless asked for.
#pragma once

#include <atomic>

namespace minicnn::cuda {

inline std::atomic<bool> allow_tf32{false};

}  // namespace minicnn::cuda
