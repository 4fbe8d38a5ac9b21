// Convolution as products of matrices: forward, with a max-pool behind it, and both gradients.  float is
// multiplied as it is, or by tensor cores in TF32; double as it is; bfloat16 by tensor cores.  Weights,
// biases and the gradients of weights are Sum<T>.
//
// Copies are 16 bytes wide, so channels and filters of a group must be a multiple of 4 floats, 2 doubles or
// 8 bfloat16.  Where they are not, zeros are added in scratch memory.  Beside bfloat16, weights are rounded
// to bfloat16 there.
#pragma once

#include "../core/launch.h"
#include "../core/vector.h"
#include "fused.h"
#include "window_order.h"

namespace minicnn::cuda {

// y = sum + bias, and then ReLU if `relu`.
template <typename T>
struct ForwardOutput {
    T* y;
    const Sum<T>* bias;
    std::int64_t F;
    int group_filters;
    bool relu;
    static constexpr bool doubts = false;
    using Stored = T;

    __device__ std::int64_t row(std::int64_t m) const { return m * F; }
    template <int V>
    __device__ Vector<Sum<T>, V> column(int group, int n, int count) const {
        Vector<Sum<T>, V> offset{};
#pragma unroll
        for (int q = 0; q < V; ++q) {
            if (bias && q < count) offset.v[q] = bias[group * group_filters + n + q];
        }
        return offset;
    }
    __device__ T* at(int group, std::int64_t row, int n) const {
        return y + row + group * group_filters + n;
    }
    template <int V>
    __device__ Vector<Sum<T>, V> value(const Vector<Sum<T>, V>& offset, Vector<Sum<T>, V> sum) const {
#pragma unroll
        for (int q = 0; q < V; ++q) {
            sum.v[q] += offset.v[q];
            if (relu) sum.v[q] = cuda::relu(sum.v[q]);
        }
        return sum;
    }
    template <int V>
    __device__ void put(int group, std::int64_t row, int n, const Vector<Sum<T>, V>& offset,
                        const Vector<Sum<T>, V>& sum, int count) const {
        store_some(at(group, row, n), narrowed<T>(value(offset, sum)), count);
    }
};

template <typename T>
void product_forward(const T* x, const Sum<T>* weight, const ForwardOutput<T>& out, const ConvParams& p);

// The same with a max-pool behind it.
template <typename T>
void product_pool_forward(const T* x, const Sum<T>* weight, const PoolOutput<T>& out, const ConvParams& p,
                          const PoolParams& pool);

// The gradients to the input and to the weight; either may be nullptr.
template <typename T>
void product_gradients(const T* dy, const Fused& f, const T* x, const Sum<T>* weight, T* dx, Sum<T>* dw,
                       const ConvParams& p);

// ---- arrays as products read them ------------------------------------------------------------------

// The channels or filters of a group, with the zeros after them that fill 16 bytes.
template <typename T>
std::int64_t padded(std::int64_t channels) {
    return ceil_div(channels, full_width<T>) * full_width<T>;
}

// An array of T that is aligned and whose channels are padded: the given one, or a copy in scratch memory.
template <typename T>
class PaddedArray {
  public:
    explicit PaddedArray(const T* given) : copy_(0), data_(given) {}
    // fill(copy) writes it.
    template <typename Fill>
    PaddedArray(std::int64_t size, const Fill& fill) : copy_(size), data_(copy_.get()) {
        fill(copy_.get());
    }
    const T* get() const { return data_; }

  private:
    Scratch<T> copy_;
    const T* data_;
};

// x (N,H,W,C).
template <typename T>
PaddedArray<T> padded_images(const T* x, const ConvParams& p);
// weight (F,KH,KW,C/groups); the filters of each group are padded too.
template <typename T>
PaddedArray<T> padded_filters(const Sum<T>* weight, const ConvParams& p);
// The gradient of the convolution's own output (N,OH,OW,F), with `wide` numbers for the filters of a group.
// It is dy itself, or what passes back through a ReLU or a max-pool.
template <typename T>
PaddedArray<T> map_gradient(const T* dy, const Fused& f, const ConvParams& p, std::int64_t wide);

// The gradients, of arrays as they are above.
template <typename T>
void product_input_gradient(const T* gradient, const T* filters, T* dx, const ConvParams& p);
template <typename T>
void product_weight_gradient(const T* gradient, const T* images, Sum<T>* dw, const ConvParams& p);

}  // namespace minicnn::cuda
