// The one list of what a compiled backend offers to Python, the same for the CPU and CUDA modules.
#pragma once

#include "batch_norm2d.h"
#include "conv2d.h"
#include "elementwise.h"
#include "optimizers.h"
#include "pool.h"

namespace minicnn {

// Offers a host function to Python under its own name.
template <typename Result, typename... Arguments>
void offer(py::module_& m, const char* name, Result (*function)(Arguments...)) {
    m.def(name, [function](Arguments... arguments) -> Result {
        const Device::Call call;
        return function(arguments...);
    });
}

inline void bind(py::module_& m) {
    offer(m, "conv2d_forward", &host::conv2d_forward);
    offer(m, "conv2d_backward", &host::conv2d_backward);
    offer(m, "conv2d_pool_forward", &host::conv2d_pool_forward);
    offer(m, "conv2d_pool_backward", &host::conv2d_pool_backward);
    offer(m, "dense_forward", &host::dense_forward);
    offer(m, "dense_backward", &host::dense_backward);
    offer(m, "max_pool2d_forward", &host::max_pool2d_forward);
    offer(m, "max_pool2d_backward", &host::max_pool2d_backward);
    offer(m, "avg_pool2d_forward", &host::avg_pool2d_forward);
    offer(m, "avg_pool2d_backward", &host::avg_pool2d_backward);
    offer(m, "adaptive_avg_pool2d_forward", &host::adaptive_avg_pool2d_forward);
    offer(m, "adaptive_avg_pool2d_backward", &host::adaptive_avg_pool2d_backward);
    offer(m, "batch_norm2d_forward", &host::batch_norm2d_forward);
    offer(m, "batch_norm2d_backward", &host::batch_norm2d_backward);
    offer(m, "batch_norm2d_pool_forward", &host::batch_norm2d_pool_forward);
    offer(m, "batch_norm2d_pool_backward", &host::batch_norm2d_pool_backward);
    offer(m, "fold_batch_norm2d", &host::fold_batch_norm2d);
    offer(m, "relu_forward", &host::relu_forward);
    offer(m, "relu_backward", &host::relu_backward);
    offer(m, "add_forward", &host::add_forward);
    offer(m, "add_backward", &host::add_backward);
    offer(m, "dropout_forward", &host::dropout_forward);
    offer(m, "dropout_backward", &host::dropout_backward);
    offer(m, "softmax_forward", &host::softmax_forward);
    offer(m, "softmax_backward", &host::softmax_backward);
    offer(m, "softmax_cross_entropy_forward", &host::softmax_cross_entropy_forward);
    offer(m, "softmax_cross_entropy_backward", &host::softmax_cross_entropy_backward);
    offer(m, "concat_forward", &host::concat_forward);
    offer(m, "concat_backward", &host::concat_backward);
    offer(m, "flatten_forward", &host::flatten_forward);
    offer(m, "flatten_backward", &host::flatten_backward);
    offer(m, "sgd_step", &host::sgd_step);
    offer(m, "adam_step", &host::adam_step);
    offer(m, "rmsprop_step", &host::rmsprop_step);
    offer(m, "ema_update", &host::ema_update);
    offer(m, "scale", &host::scale);
    offer(m, "global_norm", &host::global_norm);
}

}  // namespace minicnn
