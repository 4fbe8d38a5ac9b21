// The host side, once for both modules: check the arguments, allocate the result, choose float or double,
// run the kernel without the GIL.  Whichever kernels the module is linked with are called.  In the library
// these lines stand in csrc/host/elementwise.h.
#pragma once

#include "hard_swish.h"
#include "host/host.h"

namespace minicnn::host {

inline Tensor hard_swish_forward(Array x_) {
    const char* op = "hard_swish";
    const Tensor& given = tensor(op, "x", x_);
    check_float(op, "x", given);
    const Tensor x = arranged(given), y = empty_like(op, "y", x);
    run_on_floats(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::hard_swish_forward<T>(in<T>(x), out<T>(y), x.numel());
    });
    return y;
}

inline Tensor hard_swish_backward(Array dy_, Array x_) {
    const char* op = "hard_swish_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_x = tensor(op, "x", x_);
    check_float(op, "dy", given_dy);
    check_array(op, "x", given_x, given_dy.sizes(), given_dy);
    const Tensor dy = arranged(given_dy), x = arranged(given_x), dx = empty_like(op, "dx", dy);
    run_on_floats(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::hard_swish_backward<T>(in<T>(dy), in<T>(x), out<T>(dx), dy.numel());
    });
    return dx;
}

// The names that Python sees are the contract's.  An attribute would follow py::kw_only().
inline void offer_hard_swish(py::module_& m) {
    offer<hard_swish_forward>(m, "hard_swish_forward", "x"_a);
    offer<hard_swish_backward>(m, "hard_swish_backward", "dy"_a, "x"_a);
}

}  // namespace minicnn::host
