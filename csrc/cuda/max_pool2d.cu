// Max-pool.  Backward gathers: every pixel collects the gradients of the windows that it won.

#include "../ops.h"
#include "max_pool2d.h"

namespace minicnn {
namespace {

using cuda::Pixel, cuda::Pool;

template <typename T, typename Index>
struct Forward {
    const T* x;
    T* y;
    Index* argmax;  // or nullptr
    Pool pool;
    cuda::Divisor by_channels;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t number = by_channels.quotient(i);
        const auto found =
            cuda::maxima_of_window<Sum<T>, V>([this](std::int64_t j) { return cuda::load<V>(x + j); }, pool,
                                              pool.outputs.at(number), int(i - number * pool.C));
        cuda::store(y + i, found.best);
        if (argmax) cuda::store_winners(argmax + i, found);
    }
};

template <typename T, typename Index>
struct Backward {
    const T* dy;
    const Index* argmax;
    T* dx;
    Pool pool;
    cuda::Divisor by_channels;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t number = by_channels.quotient(i);
        cuda::store(dx + i, cuda::gradient_of_pixel<Sum<T>, V>(
                                [this](std::int64_t j) { return cuda::load<V>(dy + j); }, argmax, pool,
                                pool.inputs.at(number), int(i - number * pool.C)));
    }
};

}  // namespace

template <typename T, typename Index>
void max_pool2d_forward(const T* x, T* y, Index* argmax, const ImageShape& s, const PoolParams& p) {
    const Forward<T, Index> f{x, y, argmax, Pool(s, p), cuda::Divisor(s.C)};
    cuda::for_each_channel<T>(f, s, p.OH, p.OW,
                              cuda::aligned(x) && cuda::aligned(y) && cuda::aligned_winners<T>(argmax));
}

template <typename T, typename Index>
void max_pool2d_backward(const T* dy, const Index* argmax, T* dx, const ImageShape& s,
                         const PoolParams& p) {
    const Backward<T, Index> f{dy, argmax, dx, Pool(s, p), cuda::Divisor(s.C)};
    cuda::for_each_channel<T>(f, s, s.H, s.W,
                              cuda::aligned(dy) && cuda::aligned(dx) && cuda::aligned_winners<T>(argmax));
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
