// hard_swish(x) = x * min(max(x + 3, 0), 6) / 6, and its gradient: two loops over plain memory, and the two
// operations of torch's dispatcher that run them.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <Python.h>
#include <torch/library.h>

#include <algorithm>

namespace {

using at::Tensor;
constexpr std::int64_t grain = 32768;  // fewer values are not worth a thread

void check(const Tensor& t, const char* name) {
    TORCH_CHECK_VALUE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, "[hard_swish] ",
                      name, ": expected dtype float32 or float64, got ", t.scalar_type());
}

// y is dense and in the memory order of x, as at::empty_like makes it; the fake kernel says the same.
Tensor hard_swish(const Tensor& given) {
    check(given, "x");
    const Tensor x = given.is_non_overlapping_and_dense() ? given : given.contiguous();
    Tensor y = at::empty_like(x);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "hard_swish", [&] {
        const scalar_t* in = x.const_data_ptr<scalar_t>();
        scalar_t* out = y.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, x.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
                out[i] = in[i] * std::min(std::max(in[i] + 3, scalar_t(0)), scalar_t(6)) / 6;
            }
        });
    });
    return y;
}

Tensor hard_swish_backward(const Tensor& given_dy, const Tensor& given_x) {
    check(given_x, "x");
    TORCH_CHECK_VALUE(given_dy.sizes() == given_x.sizes(), "[hard_swish_backward] dy: expected shape ",
                      given_x.sizes(), ", got ", given_dy.sizes());
    TORCH_CHECK_VALUE(given_dy.scalar_type() == given_x.scalar_type(),
                      "[hard_swish_backward] dy: expected dtype ", given_x.scalar_type(), ", got ",
                      given_dy.scalar_type());
    const Tensor dy = given_dy.contiguous(), x = given_x.contiguous();
    Tensor dx = at::empty_like(x);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "hard_swish_backward", [&] {
        const scalar_t *g = dy.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>();
        scalar_t* out = dx.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, x.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
                const scalar_t slope = in[i] <= -3 ? 0 : in[i] >= 3 ? 1 : (2 * in[i] + 3) / 6;
                out[i] = g[i] * slope;
            }
        });
    });
    return dx;
}

}  // namespace

TORCH_LIBRARY(my_extension, m) {
    m.def("hard_swish(Tensor x) -> Tensor");
    m.def("hard_swish_backward(Tensor dy, Tensor x) -> Tensor");
}

TORCH_LIBRARY_IMPL(my_extension, CPU, m) {
    m.impl("hard_swish", hard_swish);
    m.impl("hard_swish_backward", hard_swish_backward);
}

// Importing the module is what registers the operations; it holds nothing itself.
PyMODINIT_FUNC PyInit__C() {
    static PyModuleDef module = {
        PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
    return PyModule_Create(&module);
}
