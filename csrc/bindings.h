// The one list of what a compiled backend offers to Python, the same for the CPU and CUDA modules.
#pragma once

#include "host_batch_norm.h"
#include "host_conv.h"
#include "host_elementwise.h"
#include "host_optimizers.h"
#include "host_pool.h"

namespace minicnn {

inline void bind(py::module_& m) {
    m.def("conv2d_forward", &host::conv2d_forward);
    m.def("conv2d_backward", &host::conv2d_backward);
    m.def("conv2d_pool_forward", &host::conv2d_pool_forward);
    m.def("conv2d_pool_backward", &host::conv2d_pool_backward);
    m.def("dense_forward", &host::dense_forward);
    m.def("dense_backward", &host::dense_backward);
    m.def("max_pool2d_forward", &host::max_pool2d_forward);
    m.def("max_pool2d_backward", &host::max_pool2d_backward);
    m.def("avg_pool2d_forward", &host::avg_pool2d_forward);
    m.def("avg_pool2d_backward", &host::avg_pool2d_backward);
    m.def("adaptive_avg_pool2d_forward", &host::adaptive_avg_pool2d_forward);
    m.def("adaptive_avg_pool2d_backward", &host::adaptive_avg_pool2d_backward);
    m.def("batch_norm2d_forward", &host::batch_norm2d_forward);
    m.def("batch_norm2d_backward", &host::batch_norm2d_backward);
    m.def("batch_norm2d_pool_forward", &host::batch_norm2d_pool_forward);
    m.def("batch_norm2d_pool_backward", &host::batch_norm2d_pool_backward);
    m.def("relu_forward", &host::relu_forward);
    m.def("relu_backward", &host::relu_backward);
    m.def("add_forward", &host::add_forward);
    m.def("add_backward", &host::add_backward);
    m.def("dropout_forward", &host::dropout_forward);
    m.def("dropout_backward", &host::dropout_backward);
    m.def("softmax_forward", &host::softmax_forward);
    m.def("softmax_backward", &host::softmax_backward);
    m.def("softmax_cross_entropy_forward", &host::softmax_cross_entropy_forward);
    m.def("softmax_cross_entropy_backward", &host::softmax_cross_entropy_backward);
    m.def("concat_forward", &host::concat_forward);
    m.def("concat_backward", &host::concat_backward);
    m.def("flatten_forward", &host::flatten_forward);
    m.def("flatten_backward", &host::flatten_backward);
    m.def("sgd_step", &host::sgd_step);
    m.def("adam_step", &host::adam_step);
    m.def("rmsprop_step", &host::rmsprop_step);
    m.def("ema_update", &host::ema_update);
    m.def("scale", &host::scale);
    m.def("global_norm", &host::global_norm);
}

}  // namespace minicnn
