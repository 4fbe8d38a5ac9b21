// Convolution fused with a max-pool, and with a ReLU between them.  The convolution's own output is never
// stored: forward, a block computes whole windows and pools them in shared memory.

#include "conv2d.h"
#include "first_layer.h"

namespace minicnn {

// The windows must not overlap, so that each pixel is computed once, and must have no padding.  A tile has
// 64 rows or more; with at most 16 cells a window, several windows fit.
bool conv2d_pool_fuses(const ConvParams&, const PoolParams& pool, bool /*need_saved*/) {
    return pool.KH * pool.KW <= 16 && pool.stride_h >= pool.KH && pool.stride_w >= pool.KW &&
           pool.pad_h == 0 && pool.pad_w == 0 && pool.dil_h == 1 && pool.dil_w == 1;
}

template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu) {
    cuda::check_sizes(p);
    const cuda::PoolOutput<T> out{y, winner, bias, p.F, int(p.OH), int(p.OW), int(p.F / p.groups), relu};
    if (cuda::is_first_layer(p) && cuda::first_layer_takes(pool)) {
        cuda::first_layer_pool_forward(x, weight, out, p, pool);
    } else {
        cuda::product_pool_forward(x, weight, out, p, pool);
    }
}

template <typename T>
void conv2d_pool_backward(const T* dy, const std::uint8_t* winner, const T* x, const T* weight, T* dx,
                          T* dw, T* db, const ConvParams& p, const PoolParams& pool) {
    cuda::conv2d_gradients(dy, {nullptr, winner, pool}, x, weight, dx, dw, db, p);
}

#define INSTANTIATE(T)                                                                                    \
    template void conv2d_pool_forward(const T*, const T*, const T*, T*, std::uint8_t*, const ConvParams&, \
                                      const PoolParams&, bool);                                           \
    template void conv2d_pool_backward(const T*, const std::uint8_t*, const T*, const T*, T*, T*, T*,     \
                                       const ConvParams&, const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
