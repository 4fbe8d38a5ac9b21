// Convolution by tensor cores, for float in TF32 and for bfloat16; weights and their gradients are float.
//
// Where a ReLU or a max-pool follows, the gradient of the convolution's own output is written to scratch
// memory once, and both products read it by asynchronous copies.
#pragma once

#include "../core/launch.h"
#include "../core/vector.h"
#include "operands.h"
#include "window_order.h"

namespace minicnn::cuda {

// y = conv2d(x, weight) + bias, and then ReLU if `relu`.
template <typename T>
void tensor_conv2d_forward(const T* x, const float* weight, const float* bias, T* y, const ConvParams& p,
                           bool relu);

// The same with a max-pool behind it.
template <typename T>
void tensor_conv2d_pool_forward(const T* x, const float* weight, const float* bias,
                                const PoolOutput<T>& out, const ConvParams& p, const PoolParams& pool);

// The gradients to the input and to the weight; either may be nullptr.
template <typename T>
void tensor_conv2d_gradients(const T* dy, const Fused& f, const T* x, const float* weight, T* dx, float* dw,
                             const ConvParams& p);

// ---- arrays as tensor cores read them --------------------------------------------------------------

// The channels or filters of a group, with the zeros after them that fill 16 bytes.
template <typename T>
std::int64_t padded(std::int64_t channels) {
    return ceil_div(channels, full_width<T>) * full_width<T>;
}

// An array of T that is aligned and whose channels are padded: the given one, or a copy in scratch memory.
template <typename T>
class TensorArray {
  public:
    explicit TensorArray(const T* given) : copy_(0), data_(given) {}
    // fill(copy) writes it.
    template <typename Fill>
    TensorArray(std::int64_t size, const Fill& fill) : copy_(size), data_(copy_.get()) {
        fill(copy_.get());
    }
    const T* get() const { return data_; }

  private:
    Scratch<T> copy_;
    const T* data_;
};

// x (N,H,W,C).
template <typename T>
TensorArray<T> tensor_images(const T* x, const ConvParams& p);
// weight (F,KH,KW,C/groups); the filters of each group are padded too.
template <typename T>
TensorArray<T> tensor_filters(const float* weight, const ConvParams& p);
// The gradient of the convolution's own output (N,OH,OW,F).
template <typename T>
TensorArray<T> tensor_gradient(const T* dy, const Fused& f, const ConvParams& p);

// The gradients, of arrays as they are above.
template <typename T>
void tensor_input_gradient(const T* gradient, const T* filters, T* dx, const ConvParams& p);
template <typename T>
void tensor_weight_gradient(const T* gradient, const T* images, float* dw, const ConvParams& p);

}  // namespace minicnn::cuda
