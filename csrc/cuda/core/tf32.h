// Whether tensor cores compute products of float, whose factors they round to TF32.
#pragma once

#include <atomic>

namespace minicnn::cuda {

// Whether factors may be rounded.  This is off unless the user asks for it.
inline std::atomic<bool> allow_tf32{false};

// Whether the factors of the present call are bfloat16 values, which TF32 holds exactly.
inline thread_local bool factors_fit_tf32 = false;

inline bool uses_tf32() { return allow_tf32 || factors_fit_tf32; }

}  // namespace minicnn::cuda
