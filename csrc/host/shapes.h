// Output sizes and argument checks of every operation.  This is minicnn/shapes.py in C++: the same checks
// in the same order with the same words, so that every backend reports the same error.
#pragma once

#include <algorithm>

#include "arguments.h"

namespace minicnn {

using Wide = __int128;  // large enough for any sum or product of two 64-bit sizes
using at::Tensor;

struct Size {
    std::int64_t h, w;
};

// ---- building blocks ---------------------------------------------------------------------------

// A dtype as NumPy prints it.
inline std::string dtype_name(at::ScalarType type) {
    switch (type) {
        case at::kFloat:
            return "float32";
        case at::kDouble:
            return "float64";
        case at::kHalf:
            return "float16";
        case at::kBFloat16:
            return "bfloat16";
        case at::kBool:
            return "bool";
        case at::kByte:
            return "uint8";
        case at::kChar:
            return "int8";
        case at::kShort:
            return "int16";
        case at::kInt:
            return "int32";
        case at::kLong:
            return "int64";
        case at::kComplexFloat:
            return "complex64";
        case at::kComplexDouble:
            return "complex128";
        default:
            return c10::toString(type);
    }
}

inline void check_float(const char* op, Name name, const Tensor& a) {
    if (a.scalar_type() != at::kFloat && a.scalar_type() != at::kDouble) {
        fail(op, name, "dtype float32 or float64", dtype_name(a.scalar_type()));
    }
}

inline void check_dtype(const char* op, Name name, const Tensor& a, at::ScalarType type) {
    if (a.scalar_type() != type) fail(op, name, "dtype " + dtype_name(type), dtype_name(a.scalar_type()));
}

inline void check_like(const char* op, Name name, const Tensor& a, const Tensor& x) {
    check_dtype(op, name, a, x.scalar_type());
}

inline void check_shape(const char* op, Name name, const Tensor& a, c10::IntArrayRef shape) {
    if (a.sizes() != shape) fail(op, name, "shape " + repr(shape), repr(a.sizes()));
}

inline void check_array(const char* op, Name name, const Tensor& a, c10::IntArrayRef shape,
                        const Tensor& x) {
    check_like(op, name, a, x);
    check_shape(op, name, a, shape);
}

inline void check_image(const char* op, Name name, const Tensor& x) {
    check_float(op, name, x);
    if (x.dim() != 4) fail(op, name, "4 dimensions (N, C, H, W)", std::to_string(x.dim()));
    if (x.size(1) < 1 || x.size(2) < 1 || x.size(3) < 1) {
        fail(op, name, "C, H and W of at least 1", "shape " + repr(x.sizes()));
    }
}

inline void check_filters(const char* op, Name name, const Tensor& weight) {
    const auto w = weight.sizes();
    if (w.size() != 4) fail(op, name, "4 dimensions (F, C/groups, KH, KW)", std::to_string(w.size()));
    if (*std::min_element(w.begin(), w.end()) < 1) {
        fail(op, name, "every dimension of at least 1", "shape " + repr(w));
    }
}

inline void check_matrix(const char* op, Name name, const Tensor& x, const char* letters) {
    check_float(op, name, x);
    if (x.dim() != 2) {
        fail(op, name, "2 dimensions (" + std::string(letters) + ")", std::to_string(x.dim()));
    }
}

inline void check_pair(const char* op, Name name, const Ints& pair, std::int64_t least) {
    if (!pair.valid || pair.values.size() != 2 || std::min(pair[0], pair[1]) < least) {
        fail(op, name, "two integers of at least " + std::to_string(least), repr(pair));
    }
    // with this limit every position in an image, its padding and its windows fits 64 bits
    if (std::max(pair[0], pair[1]) >= std::int64_t{1} << 31) {
        fail(op, name, "two integers below 2**31", repr(pair));
    }
}

// (h, w) on both sides each, or (top, left, bottom, right).
inline void check_padding(const char* op, Name name, const Ints& padding) {
    const auto& values = padding.values;
    const bool counted = values.size() == 2 || values.size() == 4;
    if (!padding.valid || !counted || *std::min_element(values.begin(), values.end()) < 0) {
        fail(op, name, "two or four integers of at least 0", repr(padding));
    }
    if (*std::max_element(values.begin(), values.end()) >= std::int64_t{1} << 31) {
        fail(op, name, "two or four integers below 2**31", repr(padding));
    }
}

// Before and after the image together, along axis 0, down, or 1, across.
inline Wide padding_of_axis(const Ints& padding, int axis) {
    return Wide{padding[axis]} + padding[padding.values.size() == 4 ? axis + 2 : axis];
}

// A stride or a dilation along an axis, or less where that makes no difference: a step longer than the
// image with its padding leads out of it.  So kernels can multiply steps with sizes.
inline std::int64_t useful_step(const Ints& steps, int axis, std::int64_t size, const Ints& padding) {
    return std::int64_t(std::min<Wide>(steps[axis], size + padding_of_axis(padding, axis)));
}

inline void check_image_shape(const char* op, Name name, const Ints& shape) {
    if (!shape.valid || shape.values.size() != 4 || shape[0] < 0 ||
        std::min({shape[1], shape[2], shape[3]}) < 1) {
        fail(op, name, "(N, C, H, W)", repr(shape));
    }
}

inline std::string letter_equals(char letter, std::int64_t value) {
    return std::string(1, letter) + "=" + std::to_string(value);
}

inline Wide floor_div(Wide a, Wide b) { return a / b - (a % b < 0); }

}  // namespace minicnn

// ---- one function per operation ------------------------------------------------------------------

namespace minicnn::shapes {

inline Size conv2d(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const Ints& stride, const Ints& padding, const Ints& dilation, const Int& groups) {
    check_image(op, "x", x);
    check_like(op, "weight", weight, x);
    check_filters(op, "weight", weight);
    const auto w = weight.sizes();
    check_pair(op, "stride", stride, 1);
    check_padding(op, "padding", padding);
    check_pair(op, "dilation", dilation, 1);
    const std::int64_t channels = x.size(1), filters = w[0];
    if (!groups.valid || groups.value < 1 || channels % groups.value || filters % groups.value) {
        fail(op, "groups",
             "a divisor of C=" + std::to_string(channels) + " and F=" + std::to_string(filters),
             repr(groups.source));
    }
    if (Wide{w[1]} * groups.value != channels) {
        const std::string letter = groups.value == 1 ? "C=" : "C/groups=";
        fail(op, "weight", letter + std::to_string(channels / groups.value), letter + std::to_string(w[1]));
    }
    if (bias.defined()) check_array(op, "bias", bias, {filters}, x);
    std::int64_t out[2];
    for (int axis = 0; axis < 2; ++axis) {
        const Wide size = x.size(2 + axis);
        const Wide least = Wide{dilation[axis]} * (w[2 + axis] - 1) + 1 - padding_of_axis(padding, axis);
        if (size < least) {
            const char letter = "HW"[axis];
            fail(op, "x", std::string(1, letter) + " of at least " + std::to_string(std::int64_t(least)),
                 letter_equals(letter, x.size(2 + axis)));
        }
        out[axis] = std::int64_t((size - least) / stride[axis]) + 1;
    }
    return {out[0], out[1]};
}

inline Size pool2d(const char* op, c10::IntArrayRef shape, const Ints& kernel_size, const Ints& stride,
                   const Ints& padding, const Ints& dilation, const Flag& ceil_mode) {
    check_pair(op, "kernel_size", kernel_size, 1);
    check_pair(op, "stride", stride, 1);
    check_padding(op, "padding", padding);
    check_pair(op, "dilation", dilation, 1);
    const bool ceil = flag(op, "ceil_mode", ceil_mode);
    for (std::size_t i = 0; i < padding.values.size(); ++i) {
        if (2 * padding[i] > kernel_size[i % 2]) {
            fail(op, "padding", "at most half of kernel_size " + repr(kernel_size), repr(padding));
        }
    }
    std::int64_t out[2];
    for (int axis = 0; axis < 2; ++axis) {
        const Wide size = shape[2 + axis], pad = padding[axis], step = stride[axis];
        const Wide least =
            Wide{dilation[axis]} * (kernel_size[axis] - 1) + 1 - padding_of_axis(padding, axis);
        Wide count = floor_div(size - least, step) + 1;
        if (ceil) {
            count = -floor_div(least - size, step) + 1;
            if ((count - 1) * step >= size + pad) --count;
        }
        if (count < 1) {
            const char letter = "HW"[axis];
            fail(op, "x", std::string(1, letter) + " of at least " + std::to_string(std::int64_t(least)),
                 letter_equals(letter, shape[2 + axis]));
        }
        out[axis] = std::int64_t(count);
    }
    return {out[0], out[1]};
}

inline void dense(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    check_matrix(op, "x", x, "N, in");
    check_like(op, "weight", weight, x);
    check_matrix(op, "weight", weight, "out, in");
    if (weight.size(1) != x.size(1)) {
        fail(op, "weight", "in=" + std::to_string(x.size(1)), "in=" + std::to_string(weight.size(1)));
    }
    if (bias.defined()) check_array(op, "bias", bias, {weight.size(0)}, x);
}

inline void batch_norm2d(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& running_mean, const Tensor& running_var, bool training) {
    check_image(op, "x", x);
    const std::int64_t channels = x.size(1);
    if (weight.defined()) check_array(op, "weight", weight, {channels}, x);
    if (bias.defined()) check_array(op, "bias", bias, {channels}, x);
    const std::pair<const char*, const Tensor&> running[] = {{"running_mean", running_mean},
                                                             {"running_var", running_var}};
    for (const auto& [name, a] : running) {
        if (a.defined()) {
            check_array(op, name, a, {channels}, x);
        } else if (!training) {
            fail(op, name, "shape " + repr(c10::IntArrayRef{channels}) + " in evaluation", "None");
        }
    }
    if (training && Wide{x.size(0)} * x.size(2) * x.size(3) == 1) {
        fail(op, "x", "more than 1 value per channel in training", "shape " + repr(x.sizes()));
    }
}

// `name` is the name of the (N,K) array: logits in the forward pass, probs in the backward pass.  The
// caller checks that labels are in range, as only the module can read them on their device.  Returns K.
inline std::int64_t softmax_cross_entropy(const char* op, Name name, const Tensor& logits,
                                          const Tensor& labels) {
    check_matrix(op, name, logits, "N, K");
    if (logits.size(1) < 1) fail(op, name, "K of at least 1", "shape " + repr(logits.sizes()));
    if (labels.scalar_type() == at::kLong) {
        check_shape(op, "labels", labels, {logits.size(0)});
    } else if (labels.scalar_type() == logits.scalar_type()) {
        check_shape(op, "labels", labels, logits.sizes());
    } else {
        fail(op, "labels", "dtype int64 or " + dtype_name(logits.scalar_type()),
             dtype_name(labels.scalar_type()));
    }
    return logits.size(1);
}

inline void dropout(const char* op, Name name, const Tensor& x, const Tensor& keep_mask) {
    check_float(op, name, x);
    check_dtype(op, "keep_mask", keep_mask, at::kBool);
    check_shape(op, "keep_mask", keep_mask, x.sizes());
}

inline void concat(const char* op, const std::vector<Tensor>& xs) {
    if (xs.empty()) fail(op, "xs", "at least 1 array", "0");
    check_image(op, {"xs", 0}, xs[0]);
    const std::int64_t expected[] = {xs[0].size(0), xs[0].size(2), xs[0].size(3)};
    for (std::size_t i = 1; i < xs.size(); ++i) {
        const Name name{"xs", std::int64_t(i)};
        check_image(op, name, xs[i]);
        check_like(op, name, xs[i], xs[0]);
        const std::int64_t got[] = {xs[i].size(0), xs[i].size(2), xs[i].size(3)};
        if (!std::equal(got, got + 3, expected)) fail(op, name, "N, H, W = " + repr(expected), repr(got));
    }
}

}  // namespace minicnn::shapes
