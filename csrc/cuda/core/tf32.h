// Whether tensor cores compute products of float, whose factors they round to TF32.
#pragma once

#include <atomic>
#include <type_traits>

#include "../../bfloat16.h"

namespace minicnn::cuda {

// Whether factors may be rounded.  This is off unless the user asks for it.
inline std::atomic<bool> allow_tf32{false};

// Whether products of T go through tensor cores.  Those of bfloat16 always do.
template <typename T>
bool uses_tensor_cores() {
    return std::is_same_v<T, bfloat16> || (std::is_same_v<T, float> && allow_tf32);
}

}  // namespace minicnn::cuda
