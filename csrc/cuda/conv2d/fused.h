// What follows a convolution in the same fused operation.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn::cuda {

// Nothing, a ReLU or a max-pool (with or without ReLU).
struct Fused {
    const void* relu_y;          // the output of the ReLU, or nullptr
    const std::uint8_t* winner;  // which cell won each window of the max-pool, or nullptr
    PoolParams pool;
};

}  // namespace minicnn::cuda
