// Whether products of float may round their operands to TF32, so that tensor cores can compute them.  This
// is off unless the user asks for it.
#pragma once

#include <atomic>

namespace minicnn::cuda {

inline std::atomic<bool> allow_tf32{false};

}  // namespace minicnn::cuda
