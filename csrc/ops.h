// The kernels of all operations: functions of raw pointers to whole arrays and a few sizes. Convolution and
// dense layers have a header of their own (conv2d_ops.h).  csrc/cpu and csrc/cuda both define them: one
// module contains the one set or the other.
//
// T is float or double, and bfloat16 where nothing else is said.  Then weights, statistics and the
// gradients of weights are float (Sum<T> in bfloat16.h); a kernel computes in float and rounds each result
// once.
//
// Images are channels-last in memory, (N,H,W,C).  Outputs are overwritten and never overlap inputs.  A
// pointer that is said to be optional may be nullptr.  Arrays may be empty.
#pragma once

#include <cstdint>

#include "batch_row.h"
#include "bfloat16.h"
#include "conv2d_ops.h"
#include "sizes.h"

namespace minicnn {

// ---- pooling: x (N,H,W,C), y (N,OH,OW,C) -------------------------------------------------------

// argmax (optional, as large as y) is the number u*KW + v of the cell that won its window.  Index is a byte
// where KH*KW <= 255, and int64 otherwise.  In the backward pass it may be any number: one that is not that
// of a cell in the image gives its gradient to no pixel.
template <typename T, typename Index>
void max_pool2d_forward(const T* x, T* y, Index* argmax, const ImageShape& shape, const PoolParams& pool);
template <typename T, typename Index>
void max_pool2d_backward(const T* dy, const Index* argmax, T* dx, const ImageShape& shape,
                         const PoolParams& pool);

// The dilation of `pool` is 1.
template <typename T>
void avg_pool2d_forward(const T* x, T* y, const ImageShape& shape, const PoolParams& pool,
                        bool count_include_pad);
template <typename T>
void avg_pool2d_backward(const T* dy, T* dx, const ImageShape& shape, const PoolParams& pool,
                         bool count_include_pad);

template <typename T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const ImageShape& shape, std::int64_t OH,
                                 std::int64_t OW);
template <typename T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const ImageShape& shape, std::int64_t OH,
                                  std::int64_t OW);

// ---- batch norm: x and y (N,H,W,C); weight, bias, mean, invstd (C) -----------------------------

struct BatchNormParams {
    double momentum, eps;
    bool training;
};

// y = weight * (x - mean) * invstd + bias, then + residual (optional, as large as x), then ReLU if `relu`.
// weight and bias are optional, and so are the running statistics in training.  mean and invstd are
// outputs.
template <typename T>
void batch_norm2d_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                          Sum<T>* running_var, const T* residual, T* y, Sum<T>* mean, Sum<T>* invstd,
                          const ImageShape& shape, const BatchNormParams& p, bool relu);

// The gradients of batch_norm2d_forward.  relu_y is its output if it ended with a ReLU, and nullptr if not.
// dx, dresidual, dw and db are optional.
template <typename T>
void batch_norm2d_backward(const T* dy, const T* relu_y, const T* x, const Sum<T>* weight,
                           const Sum<T>* mean, const Sum<T>* invstd, T* dx, T* dresidual, Sum<T>* dw,
                           Sum<T>* db, const ImageShape& shape, bool training);

// y = max_pool2d(relu(batch_norm2d(x))); y and argmax (optional) are (N,OH,OW,C).
template <typename T, typename Index>
void batch_norm2d_pool_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                               Sum<T>* running_var, T* y, Index* argmax, Sum<T>* mean, Sum<T>* invstd,
                               const ImageShape& shape, const BatchNormParams& p, const PoolParams& pool);
template <typename T, typename Index>
void batch_norm2d_pool_backward(const T* dy, const T* y, const Index* argmax, const T* x,
                                const Sum<T>* weight, const Sum<T>* mean, const Sum<T>* invstd, T* dx,
                                Sum<T>* dw, Sum<T>* db, const ImageShape& shape, bool training,
                                const PoolParams& pool);

// The weight (F, size) and bias (F) of a convolution that equals the given convolution (bias optional)
// followed by a batch norm in evaluation, whose gamma and beta (F) are optional.  T is not bfloat16.
template <typename T>
void fold_batch_norm2d(const T* weight, const T* bias, const T* gamma, const T* beta, const T* running_mean,
                       const T* running_var, T* folded_weight, T* folded_bias, std::int64_t F,
                       std::int64_t size, double eps);

// ---- elementwise -------------------------------------------------------------------------------

template <typename T>
void relu_forward(const T* x, T* y, std::int64_t size);
template <typename T>
void relu_backward(const T* dy, const T* y, T* dx, std::int64_t size);
template <typename T>
void relu6_forward(const T* x, T* y, std::int64_t size);
template <typename T>
void relu6_backward(const T* dy, const T* y, T* dx, std::int64_t size);

// y = a + b, then ReLU if `relu`.
template <typename T>
void add_forward(const T* a, const T* b, T* y, std::int64_t size, bool relu);

// y = keep ? factor * x : 0 * x.  The forward pass applies it to x, the backward pass to dy.  Any byte but
// 0 keeps the value: a bool may be only 0 or 1, which an array from outside need not be.
template <typename T>
void dropout(const T* x, const std::uint8_t* keep, Sum<T> factor, T* y, std::int64_t size);

// y = x in another type, rounded to nearest even: float to bfloat16, and back.
template <typename From, typename To>
void cast(const From* x, To* y, std::int64_t size);

// ---- softmax and the loss: x, p, logits, probs (N,K), not of bfloat16 --------------------------

template <typename T>
void softmax_forward(const T* x, T* p, std::int64_t N, std::int64_t K);
template <typename T>
void softmax_backward(const T* dy, const T* p, T* dx, std::int64_t N, std::int64_t K);

// What becomes of the losses of the rows.
enum class Reduction { mean, sum, none };

// The targets are either `classes` (N) or `probabilities` (N,K); the other one is nullptr.  class_weight
// (K) is optional.  A row whose class is ignore_index has the loss and the gradient 0, and no part in the
// mean.
template <typename T>
struct Targets {
    const std::int64_t* classes;
    const T* probabilities;
    const T* class_weight;
    double label_smoothing;
    std::int64_t ignore_index;
    Reduction reduction;
};

// The loss is (N) without a reduction, and otherwise one number.  Then row n of dlogits is the gradient of
// loss n, and otherwise of that number.
template <typename T>
void softmax_cross_entropy_forward(const T* logits, const Targets<T>& targets, T* loss, T* probs,
                                   std::int64_t N, std::int64_t K);
template <typename T>
void softmax_cross_entropy_backward(const T* probs, const Targets<T>& targets, T* dlogits, std::int64_t N,
                                    std::int64_t K);

// ---- joining and reshaping ---------------------------------------------------------------------

// Some of the channels of an image, as an array of its own.
template <typename T>
struct Piece {
    T* data;
    std::int64_t channels;
};

// y (N,H,W, sum of channels); pixels = N*H*W.
template <typename T>
void concat_forward(const Piece<const T>* pieces, std::int64_t count, T* y, std::int64_t pixels);
template <typename T>
void concat_backward(const T* dy, const Piece<T>* pieces, std::int64_t count, std::int64_t pixels);

// (N,H,W,C) -> (N, C*H*W) and back.
template <typename T>
void flatten_forward(const T* x, T* y, const ImageShape& shape);
template <typename T>
void flatten_backward(const T* dy, T* dx, const ImageShape& shape);

// ---- batches -----------------------------------------------------------------------------------

// y (B,H,W,C): images changed and normalised as minicnn/ops/make_batch.py says, in exactly its arithmetic.
// The plan, its table and the numbers of the normalization lie where the kernel runs; `mixes` tells whether
// a row has a share other than 1 or a patch.
template <typename T>
void make_batch(const Bytes& images, const BatchPlan& plan, bool mixes,
                const Normalization<Sum<T>>& normalization, T* y);

// ---- optimizer steps, over all parameters in one call, not of bfloat16 -------------------------

// One parameter with its gradient and its state, all of `size` elements in the same memory order.  A state
// that an optimizer does not have is nullptr.
template <typename T>
struct Parameter {
    T* value;
    const T* grad;
    T* state;
    T* state2;
    std::int64_t size;
};

struct SgdParams {
    double lr, momentum, weight_decay;
    bool nesterov;
};

struct AdamParams {
    double lr, beta1, beta2, eps, weight_decay;
    bool decoupled;
    std::int64_t step;
};

struct RmspropParams {
    double lr, alpha, eps, weight_decay, momentum;
};

// state: the momentum buffer
template <typename T>
void sgd_step(const Parameter<T>* list, std::int64_t count, const SgdParams& p);
// state: exp_avg; state2: exp_avg_sq
template <typename T>
void adam_step(const Parameter<T>* list, std::int64_t count, const AdamParams& p);
// state: square_avg; state2: the momentum buffer
template <typename T>
void rmsprop_step(const Parameter<T>* list, std::int64_t count, const RmspropParams& p);
// value = decay * value + (1 - decay) * grad
template <typename T>
void ema_update(const Parameter<T>* list, std::int64_t count, double decay);
// value *= factor
template <typename T>
void scale(const Parameter<T>* list, std::int64_t count, double factor);
// The sum of the squares of all values; on a GPU this waits for the result.
template <typename T>
double sum_of_squares(const Parameter<T>* list, std::int64_t count);

}  // namespace minicnn
