// Host side of make_batch.  The images are an array of the device; all else is drawn on the host, in NumPy
// arrays, and goes to the device in one copy.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>

#include "host.h"

namespace minicnn::host {

constexpr std::int64_t image_border = 32;  // 16 pixels at both sides

// ---- arguments -----------------------------------------------------------------------------------

// NumPy's dtype of a BatchRow.  Never freed, as it may outlive the interpreter.
inline const py::dtype& batch_row_dtype() {
    static const py::dtype* dtype = [] {
        py::list names, formats, offsets;
        const auto add = [&](const char* name, const char* format, std::size_t offset) {
            names.append(name);
            formats.append(format);
            offsets.append(offset);
        };
#define MINICNN_FIELD(name, format) add(#name, format, offsetof(BatchRow, name))
        MINICNN_FIELD(flip, "i4");
        MINICNN_FIELD(down, "i4");
        MINICNN_FIELD(right, "i4");
        MINICNN_FIELD(warped, "i4");
        MINICNN_FIELD(affine, "(2,3)f4");
        MINICNN_FIELD(reach, "(4,)f4");
        MINICNN_FIELD(brightness, "f4");
        MINICNN_FIELD(contrast, "f4");
        MINICNN_FIELD(saturation, "f4");
        MINICNN_FIELD(step, "f4");
        MINICNN_FIELD(threshold, "f4");
        MINICNN_FIELD(cutout, "(4,)i4");
        MINICNN_FIELD(erase, "(4,)i4");
        MINICNN_FIELD(patch, "(4,)i4");
        MINICNN_FIELD(partner, "i4");
        MINICNN_FIELD(share, "f4");
#undef MINICNN_FIELD
        return new py::dtype(names, formats, offsets, sizeof(BatchRow));
    }();
    return *dtype;
}

inline bool is_ndarray(Array a) { return py::isinstance<py::array>(py::handle(a.object)); }

inline py::array ndarray(const char* op, Name name, Array a) {
    if (!is_ndarray(a)) {
        fail(op, name, "a numpy.ndarray", a.given() ? Py_TYPE(a.object)->tp_name : "None");
    }
    return py::reinterpret_borrow<py::array>(a.object);
}

inline c10::SmallVector<std::int64_t, 5> sizes_of(const py::array& a) {
    return {a.shape(), a.shape() + a.ndim()};
}

// The images (M,C,H,W), and M.
struct Source {
    Bytes bytes;
    std::int64_t count;
};

// A tensor of the device; on the CPU also a NumPy array, such as a dataset that is mapped from a file.  It
// is read where it lies, in any memory order.
inline Source source_of(const char* op, Array images) {
    c10::SmallVector<std::int64_t, 5> sizes, steps;
    const std::uint8_t* data;
    std::string dtype;
    if (Device::type == at::kCPU && is_ndarray(images)) {
        const py::array a = ndarray(op, "images", images);
        sizes = sizes_of(a);
        steps.assign(a.strides(), a.strides() + a.ndim());
        data = static_cast<const std::uint8_t*>(a.data());
        dtype = py::str(a.dtype());
    } else {
        const Tensor& t = tensor(op, "images", images);
        sizes.assign(t.sizes().begin(), t.sizes().end());
        steps.assign(t.strides().begin(), t.strides().end());
        data = static_cast<const std::uint8_t*>(t.const_data_ptr());
        dtype = dtype_name(t.scalar_type());
    }
    if (dtype != "uint8") fail(op, "images", "dtype uint8", dtype);
    if (sizes.size() != 4) fail(op, "images", "4 dimensions (M, C, H, W)", std::to_string(sizes.size()));
    if (std::min({sizes[1], sizes[2], sizes[3]}) < 1) {
        fail(op, "images", "C, H and W of at least 1", "shape " + repr(sizes));
    }
    // A warp counts places in an image with a border in 32 bits, and in float.
    if (Wide{sizes[1]} * (sizes[2] + image_border) * (sizes[3] + image_border) >= Wide{1} << 30) {
        fail(op, "images", "fewer than 2**30 values an image with a border of 16 pixels",
             "shape " + repr(sizes));
    }
    return {{data, sizes[1], sizes[2], sizes[3], steps[0], steps[1], steps[2], steps[3]}, sizes[0]};
}

// Copies a one-dimensional array of any stride.
template <typename T>
std::vector<T> values_of(const py::array& a) {
    std::vector<T> values(static_cast<std::size_t>(a.shape(0)));
    const auto* from = static_cast<const char*>(a.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::memcpy(&values[i], from + static_cast<std::ptrdiff_t>(i) * a.strides(0), sizeof(T));
    }
    return values;
}

// The values of a one-dimensional array of this dtype and length.
template <typename T>
std::vector<T> vector_of(const char* op, Name name, Array given, const py::dtype& dtype,
                         const char* dtype_name, std::int64_t length) {
    const py::array a = ndarray(op, name, given);
    if (!a.dtype().equal(dtype)) {
        fail(op, name, std::string("dtype ") + dtype_name, std::string(1, a.dtype().kind()));
    }
    const auto sizes = sizes_of(a);
    if (sizes.size() != 1 || sizes[0] != length) {
        fail(op, name, "shape " + repr(c10::IntArrayRef{length}), repr(sizes));
    }
    return values_of<T>(a);
}

inline std::vector<std::int64_t> row_numbers(const char* op, Array given) {
    const py::array a = ndarray(op, "rows", given);
    const std::string dtype = py::str(a.dtype());
    if (dtype != "int64") fail(op, "rows", "dtype int64", dtype);
    if (a.ndim() != 1) fail(op, "rows", "1 dimension (B,)", std::to_string(a.ndim()));
    return values_of<std::int64_t>(a);
}

inline bool is_finite(const BatchRow& r) {
    bool finite = true;
    const auto look = [&](const float* first, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) finite = finite && std::isfinite(first[i]);
    };
    look(r.affine[0], 6);
    look(r.reach, 4);
    for (const float value : {r.brightness, r.contrast, r.saturation, r.step, r.threshold, r.share}) {
        look(&value, 1);
    }
    return finite;
}

// Raises the contract's error unless kernels can follow the table without leaving their arrays.
inline void check_rows(const char* op, const std::vector<BatchRow>& table, const Bytes& images) {
    const auto B = static_cast<std::int64_t>(table.size());
    for (std::int64_t n = 0; n < B; ++n) {
        const BatchRow& r = table[std::size_t(n)];
        const Name name{"table", n};
        const float *reach = r.reach, H = float(images.H), W = float(images.W);
        if (!is_finite(r)) fail(op, name, "finite numbers", "another");
        const bool reaches = reach[0] >= -1 && reach[1] >= -1 && reach[2] <= H && reach[3] <= W &&
                             reach[0] <= reach[2] && reach[1] <= reach[3];
        if (r.warped && !reaches) {
            fail(op, name, "a reach within -1 and " + repr({images.H, images.W}), "another");
        }
        if (!(r.step >= 1)) fail(op, name, "a step of at least 1", "a smaller one");
        if (r.partner < 0 || r.partner >= B) {
            fail(op, name, "a partner from 0 to " + std::to_string(B - 1), "another");
        }
    }
}

// ---- the operation -------------------------------------------------------------------------------

// Arrays side by side in memory, which reach the device in one copy.
class Packed {
  public:
    template <typename T>
    std::size_t add(const std::vector<T>& values) {
        const std::size_t at = (bytes_.size() + 15) / 16 * 16;
        bytes_.resize(at + values.size() * sizeof(T));
        if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
        return at;
    }
    // The copy on the device, which must live until the kernel is launched.
    Tensor on_device() { return Device::upload(bytes_.data(), bytes_.size()); }

  private:
    std::vector<std::uint8_t> bytes_;
};

template <typename T>
const T* at_offset(const Tensor& bytes, std::size_t offset) {
    return reinterpret_cast<const T*>(static_cast<const std::uint8_t*>(bytes.const_data_ptr()) + offset);
}

inline Tensor make_batch(Array images_, Array rows_, Array table_, Array mean_, Array std_,
                         const Word& dtype) {
    const char* op = "make_batch";
    const Source source = source_of(op, images_);
    const Bytes& images = source.bytes;
    const std::vector<std::int64_t> rows = row_numbers(op, rows_);
    const auto B = static_cast<std::int64_t>(rows.size());
    const auto table = vector_of<BatchRow>(op, "table", table_, batch_row_dtype(), "BATCH_ROW", B);
    const auto numbers = py::dtype::of<double>();
    const auto mean = vector_of<double>(op, "mean", mean_, numbers, "float64", images.C);
    const auto std = vector_of<double>(op, "std", std_, numbers, "float64", images.C);
    const bool wide = dtype.is("float64"), half = dtype.is("bfloat16");
    if (!dtype.is("float32") && !wide && !half) {
        fail(op, "dtype", "'float32', 'float64' or 'bfloat16'", repr(dtype.source));
    }
    for (const std::int64_t row : rows) {
        if (row < 0 || row >= source.count) {
            fail(op, "rows", "values from 0 to " + std::to_string(source.count - 1), std::to_string(row));
        }
    }
    check_rows(op, table, images);
    bool mixes = false;
    for (const BatchRow& r : table) {
        const Box& b = r.patch;
        mixes = mixes || r.share != 1 || (b.bottom > b.top && b.right > b.left);
    }
    const Tensor y = empty(op, "y", {B, images.C, images.H, images.W},
                           wide   ? at::kDouble
                           : half ? at::kBFloat16
                                  : at::kFloat);
    run(y, [&](auto zero) {
        using T = decltype(zero);
        using S = Sum<T>;
        std::vector<S> scale, shift;
        std::vector<float> fill;
        for (std::size_t c = 0; c < mean.size(); ++c) {
            scale.push_back(S(1 / (255 * std[c])));
            shift.push_back(S(-mean[c] / std[c]));
            fill.push_back(255 * float(mean[c]));
        }
        Packed packed;
        const std::size_t at_rows = packed.add(rows), at_table = packed.add(table),
                          at_scale = packed.add(scale), at_shift = packed.add(shift),
                          at_fill = packed.add(fill);
        const Tensor there = packed.on_device();
        const BatchPlan plan{at_offset<std::int64_t>(there, at_rows), at_offset<BatchRow>(there, at_table),
                             B};
        const Normalization<S> normalization{at_offset<S>(there, at_scale), at_offset<S>(there, at_shift),
                                             at_offset<float>(there, at_fill)};
        minicnn::make_batch<T>(images, plan, mixes, normalization, out<T>(y));
    });
    return y;
}

inline void offer_make_batch(py::module_& m) {
    offer<make_batch>(m, "make_batch", "images"_a, "rows"_a, "table"_a, "mean"_a, "std"_a, py::kw_only(),
                      "dtype"_a = "float32");
}

}  // namespace minicnn::host
