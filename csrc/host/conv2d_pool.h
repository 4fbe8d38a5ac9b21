// Host side of convolution fused with a max-pool, and with a ReLU between them if `relu`.
//
// The device decides in one function, conv2d_pool_fuses, whether one kernel does all of it.  If not, the
// operations run one after the other, as base.py composes them.  What the forward pass saves says which of
// the two it was, so that the backward pass decides nothing:
//   ("fused", winner)              winner: a byte for each pooled value (relu_off in conv2d_ops.h)
//   ("composed", argmax, relu_y)   relu_y: y, or None without ReLU
// The tuple may also come from another call.  What it holds is checked against this one, and a winner that
// is no cell of the convolution's map passes no gradient on.
#pragma once

#include <array>

#include "conv2d.h"
#include "pool.h"

namespace minicnn::host {

constexpr const char *fused_kind = "fused", *composed_kind = "composed";

inline FusedMany fused_forward(const ConvForward& a, const PoolParams& pool, bool relu, bool need_saved) {
    const std::int64_t pooled[] = {a.p.N, a.p.F, pool.OH, pool.OW};
    const Tensor y = empty("max_pool2d", "y", pooled, a.x.scalar_type());
    const Tensor winner = empty_if(need_saved, "max_pool2d", "argmax", pooled, at::kByte);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_pool_forward(in<T>(a.x), in<Sum<T>>(a.weight), in<Sum<T>>(a.bias), out<T>(y),
                                     out<std::uint8_t>(winner), a.p, pool, relu);
    });
    if (!need_saved) return {y, py::none()};
    return {y, py::make_tuple(fused_kind, winner)};
}

// ReLU comes after the pool, where fewer values are left: the maximum of ReLUs is the ReLU of the maximum.
inline FusedMany composed_forward(const ConvForward& a, const PoolParams& pool, bool relu,
                                  bool need_saved) {
    const Tensor full = conv2d_output(a, /*relu=*/false);
    const auto [pooled, argmax] = max_pool("max_pool2d", full, pool, need_saved);
    const Tensor y = relu ? relu_of(pooled) : pooled;
    if (!need_saved) return {y, py::none()};
    return {y, py::make_tuple(composed_kind, argmax, relu ? y : Tensor())};
}

inline FusedMany conv2d_pool_forward(const ConvForward& a, const Pool& attributes, bool relu,
                                     bool need_saved) {
    const std::int64_t full[] = {a.p.N, a.p.F, a.p.OH, a.p.OW};
    const PoolParams pool = pool_params("max_pool2d", full, attributes);
    return conv2d_pool_fuses(a.p, pool, need_saved) ? fused_forward(a, pool, relu, need_saved)
                                                    : composed_forward(a, pool, relu, need_saved);
}

// The shape of the convolution's output, and the pool over it.
struct PooledMap {
    std::array<std::int64_t, 4> shape;
    PoolParams pool;

    PooledMap(const Tensor& x, const Tensor& weight, Size output, const Pool& attributes)
        : shape{x.size(0), weight.size(0), output.h, output.w},
          pool(pool_params("max_pool2d_backward", shape, attributes)) {}
};

inline Gradients composed_backward(Array dy_, Array x_, Array weight_, Array argmax, Array relu_y,
                                   const Conv& conv, const Pool& attributes, bool relu, Need need) {
    const char *op = "conv2d_backward", *pool_op = "max_pool2d_backward";
    const Tensor dy = relu ? relu_backward(dy_, relu_y) : tensor(op, "dy", dy_);
    check_image(pool_op, "dy", dy);
    const Tensor &x = tensor(op, "x", x_), &weight = tensor(op, "weight", weight_);
    const PooledMap map(x, weight, conv_output(op, x, weight, {}, conv), attributes);
    const Tensor dfull = max_pool_dx(dy, tensor(pool_op, "argmax", argmax), map.shape, map.pool);
    return conv2d_gradients(dfull, {}, x_, weight_, conv, need);
}

inline Gradients fused_backward(Array dy_, Array x_, Array weight_, Array winner_, const Conv& conv,
                                const Pool& attributes, bool relu, Need need) {
    const char *op = "conv2d_backward", *pool_op = "max_pool2d_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_winner = tensor(pool_op, "argmax", winner_);
    if (relu) {
        check_activation("relu_backward", "dy", given_dy);
        check_shape("relu_backward", "y", given_winner, given_dy.sizes());
    }
    check_image(pool_op, "dy", given_dy);
    const Tensor &x = tensor(op, "x", x_), &weight = tensor(op, "weight", weight_);
    const Size output = conv_output(op, x, weight, {}, conv);
    const PooledMap map(x, weight, output, attributes);
    check_shape(pool_op, "dy", given_dy, {map.shape[0], map.shape[1], map.pool.OH, map.pool.OW});
    check_argmax(pool_op, given_winner, given_dy, map.pool);
    check_like(op, "dy", given_dy, x);
    const ConvBackward a(x, weight, conv, output, need);
    if (!conv2d_pool_fuses(a.p, map.pool, /*need_saved=*/true)) {  // the winners of a pool that is fused
        return composed_backward(dy_, x_, weight_, winner_, {Py_None}, conv, attributes, false, need);
    }
    const Tensor dy = arranged(given_dy), winner = arranged(given_winner);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_pool_backward(in<T>(dy), in<std::uint8_t>(winner), in<T>(a.x), in<Sum<T>>(a.weight),
                                      out<T>(a.dx), out<Sum<T>>(a.dw), out<Sum<T>>(a.db), a.p, map.pool);
    });
    return {a.dx, a.dw, a.db};
}

inline Gradients conv2d_pool_backward(const char* op, Array dy, Array x, Array weight, const Saved& saved,
                                      const Conv& conv, const Pool& pool, bool relu, Need need) {
    if (saved.is(fused_kind, 2)) return fused_backward(dy, x, weight, saved[1], conv, pool, relu, need);
    if (saved.is(composed_kind, 3)) {
        return composed_backward(dy, x, weight, saved[1], saved[2], conv, pool, relu, need);
    }
    saved.refuse(op);
}

// ---- the contract's names --------------------------------------------------------------------------

inline FusedMany conv2d_max_pool2d_forward(Array x, Array weight, Array bias, const Conv& conv,
                                           const Pool& pool, bool need_saved) {
    return conv2d_pool_forward({x, weight, bias, conv}, pool, /*relu=*/false, need_saved);
}

inline FusedMany conv2d_relu_max_pool2d_forward(Array x, Array weight, Array bias, const Conv& conv,
                                                const Pool& pool, bool need_saved) {
    return conv2d_pool_forward({x, weight, bias, conv}, pool, /*relu=*/true, need_saved);
}

inline Gradients conv2d_max_pool2d_backward(Array dy, Array x, Array weight, const Saved& saved,
                                            const Conv& conv, const Pool& pool, bool need_dx, bool need_dw,
                                            bool need_db) {
    return conv2d_pool_backward("conv2d_max_pool2d_backward", dy, x, weight, saved, conv, pool,
                                /*relu=*/false, {need_dx, need_dw, need_db});
}

inline Gradients conv2d_relu_max_pool2d_backward(Array dy, Array x, Array weight, const Saved& saved,
                                                 const Conv& conv, const Pool& pool, bool need_dx,
                                                 bool need_dw, bool need_db) {
    return conv2d_pool_backward("conv2d_relu_max_pool2d_backward", dy, x, weight, saved, conv, pool,
                                /*relu=*/true, {need_dx, need_dw, need_db});
}

inline void offer_conv2d_pool(py::module_& m) {
    offer<conv2d_max_pool2d_forward>(m, "conv2d_max_pool2d_forward", "x"_a, "weight"_a, "bias"_a,
                                     py::kw_only(), "conv"_a, "pool"_a, "need_saved"_a = true);
    offer<conv2d_max_pool2d_backward>(m, "conv2d_max_pool2d_backward", "dy"_a, "x"_a, "weight"_a, "saved"_a,
                                      py::kw_only(), "conv"_a, "pool"_a, "need_dx"_a = true,
                                      "need_dw"_a = true, "need_db"_a = true);
    offer<conv2d_relu_max_pool2d_forward>(m, "conv2d_relu_max_pool2d_forward", "x"_a, "weight"_a, "bias"_a,
                                          py::kw_only(), "conv"_a, "pool"_a, "need_saved"_a = true);
    offer<conv2d_relu_max_pool2d_backward>(m, "conv2d_relu_max_pool2d_backward", "dy"_a, "x"_a, "weight"_a,
                                           "saved"_a, py::kw_only(), "conv"_a, "pool"_a, "need_dx"_a = true,
                                           "need_dw"_a = true, "need_db"_a = true);
}

}  // namespace minicnn::host
