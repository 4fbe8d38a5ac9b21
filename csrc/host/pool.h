// Host side of pooling.
#pragma once

#include "host.h"

namespace minicnn::host {

// The checked attributes of a max-pool over an input of this shape.
inline PoolParams pool_params(const char* op, c10::IntArrayRef shape, const Pool& pool) {
    const auto& [kernel, stride, padding, dilation, ceil_mode] = pool;
    const Size output = shapes::pool2d(op, shape, kernel, stride, padding, dilation, ceil_mode);
    const std::size_t after = padding.values.size() - 2;
    const auto step = [&, &padding = padding](const Ints& steps, int axis) {
        return useful_step(steps, axis, shape[2 + axis], padding);
    };
    return {kernel[0],         kernel[1],         output.h,       output.w,
            step(stride, 0),   step(stride, 1),   padding[0],     padding[1],
            step(dilation, 0), step(dilation, 1), padding[after], padding[after + 1]};
}

// A window of up to 255 cells: the winner's number fits a byte, and the value 255 stays free.
inline at::ScalarType argmax_dtype(const PoolParams& pool) {
    return pool.KH * pool.KW <= 255 ? at::kByte : at::kLong;
}

// Calls body(index) with the integer type of an argmax.
template <typename Body>
void with_index(at::ScalarType dtype, const Body& body) {
    dtype == at::kByte ? body(std::uint8_t()) : body(std::int64_t());
}

inline void check_argmax(const char* op, const Tensor& argmax, const Tensor& dy, const PoolParams& pool) {
    check_shape(op, "argmax", argmax, dy.sizes());
    check_dtype(op, "argmax", argmax, argmax_dtype(pool));
}

// ---- max-pool --------------------------------------------------------------------------------------

// (y, argmax) of an image whose pool is checked already.
inline std::pair<Tensor, Tensor> max_pool(const char* op, const Tensor& x, const PoolParams& pool,
                                          bool need_argmax) {
    const ImageShape s = image_shape(x.sizes());
    const std::int64_t pooled[] = {s.N, s.C, pool.OH, pool.OW};
    const Tensor y = empty(op, "y", pooled, x.scalar_type());
    const Tensor argmax = empty_if(need_argmax, op, "argmax", pooled, argmax_dtype(pool));
    run(x, [&](auto zero) {
        using T = decltype(zero);
        with_index(argmax_dtype(pool), [&](auto index) {
            using Index = decltype(index);
            minicnn::max_pool2d_forward<T, Index>(in<T>(x), out<T>(y), out<Index>(argmax), s, pool);
        });
    });
    return {y, argmax};
}

inline std::pair<Tensor, Tensor> max_pool2d_forward(Array x_, const Ints& kernel_size, const Ints& stride,
                                                    const Ints& padding, const Ints& dilation,
                                                    const Flag& ceil_mode, bool need_argmax) {
    const char* op = "max_pool2d";
    const Tensor& x = tensor(op, "x", x_);
    check_image(op, "x", x);
    const PoolParams pool = pool_params(op, x.sizes(), {kernel_size, stride, padding, dilation, ceil_mode});
    return max_pool(op, arranged(x), pool, need_argmax);
}

// The gradient to an image of this shape, whose pool is checked already.
inline Tensor max_pool_dx(const Tensor& given_dy, const Tensor& given_argmax, c10::IntArrayRef shape,
                          const PoolParams& pool) {
    const char* op = "max_pool2d_backward";
    check_shape(op, "dy", given_dy, {shape[0], shape[1], pool.OH, pool.OW});
    check_argmax(op, given_argmax, given_dy, pool);
    const Tensor dy = arranged(given_dy), argmax = arranged(given_argmax);
    const Tensor dx = empty(op, "dx", shape, dy.scalar_type());
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        with_index(argmax.scalar_type(), [&](auto index) {
            using Index = decltype(index);
            minicnn::max_pool2d_backward<T, Index>(in<T>(dy), in<Index>(argmax), out<T>(dx),
                                                   image_shape(shape), pool);
        });
    });
    return dx;
}

inline Tensor max_pool_dx(const Tensor& dy, const Tensor& argmax, const Ints& input_shape,
                          const Pool& attributes) {
    const char* op = "max_pool2d_backward";
    check_image(op, "dy", dy);
    check_image_shape(op, "input_shape", input_shape);
    return max_pool_dx(dy, argmax, input_shape.values, pool_params(op, input_shape.values, attributes));
}

inline Tensor max_pool2d_backward(Array dy, Array argmax, const Ints& input_shape, const Ints& kernel_size,
                                  const Ints& stride, const Ints& padding, const Ints& dilation,
                                  const Flag& ceil_mode) {
    const char* op = "max_pool2d_backward";
    return max_pool_dx(tensor(op, "dy", dy), tensor(op, "argmax", argmax), input_shape,
                       {kernel_size, stride, padding, dilation, ceil_mode});
}

// ---- average pools ---------------------------------------------------------------------------------

inline Ints pair_of_ones() {
    Ints ones;
    ones.values = {1, 1};
    ones.valid = true;
    return ones;
}

inline Tensor avg_pool2d_forward(Array x_, const Ints& kernel_size, const Ints& stride, const Ints& padding,
                                 const Flag& ceil_mode, bool count_include_pad) {
    const char* op = "avg_pool2d";
    const Tensor& given = tensor(op, "x", x_);
    check_image(op, "x", given);
    const PoolParams pool =
        pool_params(op, given.sizes(), {kernel_size, stride, padding, pair_of_ones(), ceil_mode});
    const Tensor x = arranged(given);
    const ImageShape s = image_shape(x.sizes());
    const Tensor y = empty(op, "y", {s.N, s.C, pool.OH, pool.OW}, x.scalar_type());
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::avg_pool2d_forward<T>(in<T>(x), out<T>(y), s, pool, count_include_pad);
    });
    return y;
}

inline Tensor avg_pool2d_backward(Array dy_, const Ints& input_shape, const Ints& kernel_size,
                                  const Ints& stride, const Ints& padding, const Flag& ceil_mode,
                                  bool count_include_pad) {
    const char* op = "avg_pool2d_backward";
    const Tensor& given = tensor(op, "dy", dy_);
    check_image(op, "dy", given);
    check_image_shape(op, "input_shape", input_shape);
    const PoolParams pool =
        pool_params(op, input_shape.values, {kernel_size, stride, padding, pair_of_ones(), ceil_mode});
    check_shape(op, "dy", given, {input_shape[0], input_shape[1], pool.OH, pool.OW});
    const Tensor dy = arranged(given), dx = empty(op, "dx", input_shape.values, given.scalar_type());
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::avg_pool2d_backward<T>(in<T>(dy), out<T>(dx), image_shape(dx.sizes()), pool,
                                        count_include_pad);
    });
    return dx;
}

inline Tensor adaptive_avg_pool2d_forward(Array x_, const Ints& output_size) {
    const char* op = "adaptive_avg_pool2d";
    const Tensor& given = tensor(op, "x", x_);
    check_image(op, "x", given);
    check_pair(op, "output_size", output_size, 1);
    const Tensor x = arranged(given);
    const ImageShape s = image_shape(x.sizes());
    const Tensor y = empty(op, "y", {s.N, s.C, output_size[0], output_size[1]}, x.scalar_type());
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::adaptive_avg_pool2d_forward<T>(in<T>(x), out<T>(y), s, output_size[0], output_size[1]);
    });
    return y;
}

inline Tensor adaptive_avg_pool2d_backward(Array dy_, const Ints& input_shape) {
    const char* op = "adaptive_avg_pool2d_backward";
    const Tensor& given = tensor(op, "dy", dy_);
    check_image(op, "dy", given);
    check_image_shape(op, "input_shape", input_shape);
    if (input_shape[0] != given.size(0) || input_shape[1] != given.size(1)) {
        fail(op, "input_shape", "(N, C) = " + repr(given.sizes().slice(0, 2)) + " and H, W",
             repr(input_shape));
    }
    const Tensor dy = arranged(given), dx = empty(op, "dx", input_shape.values, given.scalar_type());
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::adaptive_avg_pool2d_backward<T>(in<T>(dy), out<T>(dx), image_shape(dx.sizes()), dy.size(2),
                                                 dy.size(3));
    });
    return dx;
}

inline void offer_pool(py::module_& m) {
    offer<max_pool2d_forward>(m, "max_pool2d_forward", "x"_a, py::kw_only(), "kernel_size"_a, "stride"_a,
                              "padding"_a, "dilation"_a, "ceil_mode"_a, "need_argmax"_a = true);
    offer<max_pool2d_backward>(m, "max_pool2d_backward", "dy"_a, "argmax"_a, py::kw_only(), "input_shape"_a,
                               "kernel_size"_a, "stride"_a, "padding"_a, "dilation"_a, "ceil_mode"_a);
    offer<avg_pool2d_forward>(m, "avg_pool2d_forward", "x"_a, py::kw_only(), "kernel_size"_a, "stride"_a,
                              "padding"_a, "ceil_mode"_a, "count_include_pad"_a);
    offer<avg_pool2d_backward>(m, "avg_pool2d_backward", "dy"_a, py::kw_only(), "input_shape"_a,
                               "kernel_size"_a, "stride"_a, "padding"_a, "ceil_mode"_a,
                               "count_include_pad"_a);
    offer<adaptive_avg_pool2d_forward>(m, "adaptive_avg_pool2d_forward", "x"_a, py::kw_only(),
                                       "output_size"_a);
    offer<adaptive_avg_pool2d_backward>(m, "adaptive_avg_pool2d_backward", "dy"_a, py::kw_only(),
                                        "input_shape"_a);
}

}  // namespace minicnn::host
