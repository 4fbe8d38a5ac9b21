// Batch norm, alone and in one pass with what follows it: + residual, ReLU, max-pool.

#include "../ops.h"
#include "batch_norm2d.h"
#include "max_pool2d.h"

namespace minicnn {
namespace {

template <typename T>
struct Normalise {
    cuda::Affine<T> affine;
    const T* residual;
    T* y;
    std::int64_t C;
    bool relu;
    template <int V>
    __device__ void at(std::int64_t i) const {
        cuda::Vector<Sum<T>, V> values = affine.template at<V>(i, i - cuda::divide(i, C) * C);
        if (residual) {
            const auto more = cuda::load<V>(residual + i);
            for (int k = 0; k < V; ++k) values.v[k] += more.v[k];
        }
        if (relu) {
            for (int k = 0; k < V; ++k) values.v[k] = cuda::relu(values.v[k]);
        }
        cuda::store(y + i, values);
    }
};

// The gradient before the ReLU, if there is one; relu_y is its output.
template <typename T>
struct Upstream {
    const T *dy, *relu_y;
    __device__ Sum<T> operator()(std::int64_t i) const {
        const Sum<T> gradient = widen(dy[i]);
        return relu_y ? cuda::relu_gradient(Sum<T>(widen(relu_y[i])), gradient) : gradient;
    }
};

// The gradient of the map before the pool.  It is never stored: each element collects what its windows give
// it.
template <typename T, typename Index>
struct Unpooled {
    Upstream<T> upstream;
    const Index* argmax;
    ImageShape s;
    PoolParams p;
    __device__ Sum<T> operator()(std::int64_t i) const {
        return cuda::gradient_of_pixel<Sum<T>>(upstream, argmax, cuda::place_of(i, s.H, s.W, s.C), s, p);
    }
};

}  // namespace

template <typename T>
void batch_norm2d_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                          Sum<T>* running_var, const T* residual, T* y, Sum<T>* mean, Sum<T>* invstd,
                          const ImageShape& s, const BatchNormParams& p, bool relu) {
    cuda::find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const Normalise<T> f{{x, weight, bias, mean, invstd}, residual, y, s.C, relu};
    cuda::for_each_channel<T>(f, s, s.H, s.W,
                              cuda::aligned(x) && cuda::aligned(residual) && cuda::aligned(y));
}

template <typename T>
void batch_norm2d_backward(const T* dy, const T* relu_y, const T* x, const Sum<T>* weight,
                           const Sum<T>* mean, const Sum<T>* invstd, T* dx, T* dresidual, Sum<T>* dw,
                           Sum<T>* db, const ImageShape& s, bool training) {
    cuda::batch_norm_gradients<T>(Upstream<T>{dy, relu_y}, x, weight, mean, invstd, dx, dresidual, dw, db,
                                  s, training);
}

template <typename T, typename Index>
void batch_norm2d_pool_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                               Sum<T>* running_var, T* y, Index* argmax, Sum<T>* mean, Sum<T>* invstd,
                               const ImageShape& s, const BatchNormParams& p, const PoolParams& pool) {
    cuda::find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const cuda::Affine<T> value{x, weight, bias, mean, invstd};
    const cuda::MaxPool<T, Index, cuda::Affine<T>, true> f{value, y, argmax, s, pool};
    cuda::for_each_channel<T>(f, s, pool.OH, pool.OW, cuda::aligned(x) && cuda::aligned(y));
}

template <typename T, typename Index>
void batch_norm2d_pool_backward(const T* dy, const T* y, const Index* argmax, const T* x,
                                const Sum<T>* weight, const Sum<T>* mean, const Sum<T>* invstd, T* dx,
                                Sum<T>* dw, Sum<T>* db, const ImageShape& s, bool training,
                                const PoolParams& pool) {
    const Unpooled<T, Index> gradient{{dy, y}, argmax, s, pool};
    cuda::batch_norm_gradients<T>(gradient, x, weight, mean, invstd, dx, nullptr, dw, db, s, training);
}

#define INSTANTIATE(T, S)                                                                               \
    template void batch_norm2d_forward(const T*, const S*, const S*, S*, S*, const T*, T*, S*, S*,      \
                                       const ImageShape&, const BatchNormParams&, bool);                \
    template void batch_norm2d_backward(const T*, const T*, const T*, const S*, const S*, const S*, T*, \
                                        T*, S*, S*, const ImageShape&, bool)
INSTANTIATE(float, float);
INSTANTIATE(double, double);
INSTANTIATE(bfloat16, float);

#define INSTANTIATE_POOL(T, S, Index)                                                                      \
    template void batch_norm2d_pool_forward(const T*, const S*, const S*, S*, S*, T*, Index*, S*, S*,      \
                                            const ImageShape&, const BatchNormParams&, const PoolParams&); \
    template void batch_norm2d_pool_backward(const T*, const T*, const Index*, const T*, const S*,         \
                                             const S*, const S*, T*, S*, S*, const ImageShape&, bool,      \
                                             const PoolParams&)
INSTANTIATE_POOL(float, float, std::uint8_t);
INSTANTIATE_POOL(float, float, std::int64_t);
INSTANTIATE_POOL(double, double, std::uint8_t);
INSTANTIATE_POOL(double, double, std::int64_t);
INSTANTIATE_POOL(bfloat16, float, std::uint8_t);
INSTANTIATE_POOL(bfloat16, float, std::int64_t);

}  // namespace minicnn
