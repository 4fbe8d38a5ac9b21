// Convolution and dense layers of bfloat16, as conv2d_ops.h declares them.
#include "widened.h"

namespace minicnn {

void conv2d_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                    const ConvParams& p, bool relu) {
    widened::conv2d_forward(x, weight, bias, y, p, relu);
}

void conv2d_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                     bfloat16* dx, float* dw, float* db, const ConvParams& p) {
    widened::conv2d_backward(dy, relu_y, x, weight, dx, dw, db, p);
}

void conv2d_pool_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                         std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    widened::conv2d_pool_forward(x, weight, bias, y, winner, p, pool, relu);
}

void conv2d_pool_backward(const bfloat16* dy, const std::uint8_t* winner, const bfloat16* x,
                          const float* weight, bfloat16* dx, float* dw, float* db, const ConvParams& p,
                          const PoolParams& pool) {
    widened::conv2d_pool_backward(dy, winner, x, weight, dx, dw, db, p, pool);
}

void dense_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y, std::int64_t N,
                   std::int64_t in, std::int64_t out, bool relu) {
    widened::dense_forward(x, weight, bias, y, N, in, out, relu);
}

void dense_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                    bfloat16* dx, float* dw, float* db, std::int64_t N, std::int64_t in, std::int64_t out) {
    widened::dense_backward(dy, relu_y, x, weight, dx, dw, db, N, in, out);
}

}  // namespace minicnn
