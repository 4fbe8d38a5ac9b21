// The sizes that kernels of more than one subject take.
#pragma once

#include <cstdint>

namespace minicnn {

struct ImageShape {
    std::int64_t N, C, H, W;
};

// A max-pool or an average pool.  OH and OW are the sizes of its output, in which ceil_mode is accounted
// for.  pad_h and pad_w are the padding above and to the left.  That below and to the right is in OH and OW
// too; only an average that counts padding asks for it.
struct PoolParams {
    std::int64_t KH, KW, OH, OW;
    std::int64_t stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, pad_bottom, pad_right;
};

}  // namespace minicnn
