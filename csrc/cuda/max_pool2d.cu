// Max-pool.  Backward gathers: every pixel collects the gradients of the windows that it won.

#include "../ops.h"
#include "max_pool2d.h"

namespace minicnn {
namespace {

template <typename T>
struct Plain {
    const T* x;
    template <int V>
    __device__ cuda::Vector<Sum<T>, V> at(std::int64_t i, std::int64_t) const {
        return cuda::load<V>(x + i);
    }
};

template <typename T>
struct Upstream {
    const T* dy;
    __device__ Sum<T> operator()(std::int64_t j) const { return widen(dy[j]); }
};

template <typename T, typename Index>
struct Backward {
    Upstream<T> gradient;
    const Index* argmax;
    T* dx;
    ImageShape s;
    PoolParams p;
    template <int V>
    __device__ void at(std::int64_t i) const {
        for (int k = 0; k < V; ++k) {
            const cuda::Place at = cuda::place_of(i + k, s.H, s.W, s.C);
            dx[i + k] = minicnn::narrow<T>(cuda::gradient_of_pixel<Sum<T>>(gradient, argmax, at, s, p));
        }
    }
};

}  // namespace

template <typename T, typename Index>
void max_pool2d_forward(const T* x, T* y, Index* argmax, const ImageShape& s, const PoolParams& p) {
    const cuda::MaxPool<T, Index, Plain<T>, false> pool{{x}, y, argmax, s, p};
    cuda::for_each_channel<T>(pool, s, p.OH, p.OW, cuda::aligned(x) && cuda::aligned(y));
}

template <typename T, typename Index>
void max_pool2d_backward(const T* dy, const Index* argmax, T* dx, const ImageShape& s,
                         const PoolParams& p) {
    cuda::for_each_channel<T>(Backward<T, Index>{{dy}, argmax, dx, s, p}, s, s.H, s.W, false);
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
