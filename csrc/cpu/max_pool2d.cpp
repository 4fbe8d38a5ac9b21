// Max-pooling.  The forward pass notes the place of each winner; in the backward pass each pixel collects
// the gradients of the windows that it won, so that no two threads write one element.

#include "max_pool2d.h"

namespace minicnn {

template <typename T, typename Index>
void max_pool2d_forward(const T* x, T* y, Index* argmax, const ImageShape& s, const PoolParams& p) {
    const auto read = [x](auto L, std::int64_t offset, std::int64_t c) {
        return load_wide<L>(x + offset + c);
    };
    max_pool<Denormals::kept>(read, [](const auto& maxima) { return maxima; }, y, argmax, s, p);
}

template <typename T, typename Index>
void max_pool2d_backward(const T* dy, const Index* argmax, T* dx, const ImageShape& s,
                         const PoolParams& p) {
    const std::int64_t grain = items_per_piece(s.W * s.C);
    parallel_for<Denormals::kept>(0, s.N * s.H, grain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row) {
            max_pool_dx_row([dy](std::int64_t i) { return dy[i]; }, argmax, dx + row * s.W * s.C, row / s.H,
                            row % s.H, s, p);
        }
    });
}

#define INSTANTIATE(T, Index)                                                                     \
    template void max_pool2d_forward(const T*, T*, Index*, const ImageShape&, const PoolParams&); \
    template void max_pool2d_backward(const T*, const Index*, T*, const ImageShape&, const PoolParams&)
INSTANTIATE(float, std::uint8_t);
INSTANTIATE(float, std::int64_t);
INSTANTIATE(double, std::uint8_t);
INSTANTIATE(double, std::int64_t);
INSTANTIATE(bfloat16, std::uint8_t);
INSTANTIATE(bfloat16, std::int64_t);

}  // namespace minicnn
