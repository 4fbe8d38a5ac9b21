// The operands of a convolution's three products: forward, gradient to the input, gradient to the weight.
//
// core/gemm.h explains what an operand is.  row() and depth() work out what a row and a k stand for; at()
// then gives the address of an element, or nullptr if the element is a zero of the padding.  An operand
// that is not `plain` depends on a mask as well, because a ReLU or a max-pool follows the convolution: it
// has values<W>(), which gives W elements with those that the mask excludes set to zero.
#pragma once

#include <type_traits>

#include "../../conv2d_ops.h"
#include "../core/elementwise.h"
#include "axis.h"
#include "indices.h"

namespace minicnn::cuda {

// ---- a matrix ----------------------------------------------------------------------------------------

// A matrix in memory.  Element (row, k) is data[row * pitch + k] if k_contiguous, and data[k * pitch + row]
// if not. The matrices of two groups are `group_step` apart.
template <typename T, bool k_contiguous_>
struct Matrix {
    using Element = T;
    static constexpr bool k_contiguous = k_contiguous_, plain = true;
    const T* data;
    std::int64_t pitch, group_step;

    struct Row {
        std::int64_t offset;
        bool in;
    };
    using Depth = Row;

    __device__ void select(int group) { data += group * group_step; }
    __device__ Row row(std::int64_t row, bool in) const { return {k_contiguous ? row * pitch : row, in}; }
    __device__ Depth depth(std::int64_t k, bool in) const { return {k_contiguous ? k : k * pitch, in}; }
    __device__ const T* at(const Row& r, const Depth& d) const {
        return r.in && d.in ? data + r.offset + d.offset : nullptr;
    }
};

// ---- patches of the input ------------------------------------------------------------------------------

// The patches of x, which forward and the gradient to the weight read: element (pixel of y, tap) is the
// input that the window's tap meets at this pixel.  PixelOrder says which pixel has which number.
template <typename T, bool pixels_are_rows, typename PixelOrder = Pixels>
struct Patches {
    using Element = T;
    static constexpr bool k_contiguous = pixels_are_rows, plain = true;
    const T* data;
    std::int64_t C;
    int H, W, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, group_channels;
    PixelOrder pixels;
    Taps taps;

    struct Window {
        const T* image;
        int h, w;  // where its first cell lies; far outside the image if there is no such window
    };
    struct Cell {
        int h, w, c;
    };
    using Row = std::conditional_t<pixels_are_rows, Window, Cell>;
    using Depth = std::conditional_t<pixels_are_rows, Cell, Window>;
    static constexpr int nowhere = -(1 << 30);

    Patches(const T* x, const ConvParams& p, const PixelOrder& order)
        : data(x),
          C(p.C),
          H(narrow(p.H, "H")),
          W(narrow(p.W, "W")),
          stride_h(narrow(p.stride_h, "stride")),
          stride_w(narrow(p.stride_w, "stride")),
          pad_h(narrow(p.pad_h, "padding")),
          pad_w(narrow(p.pad_w, "padding")),
          dil_h(narrow(p.dil_h, "dilation")),
          dil_w(narrow(p.dil_w, "dilation")),
          group_channels(int(p.C / p.groups)),
          pixels(order),
          taps(p.KW, p.C / p.groups) {}

    __device__ void select(int group) { data += std::int64_t(group) * group_channels; }
    __device__ Row row(std::int64_t i, bool in) const {
        if constexpr (pixels_are_rows) {
            return window(i, in);
        } else {
            return cell(i, in);
        }
    }
    __device__ Depth depth(std::int64_t i, bool in) const {
        if constexpr (pixels_are_rows) {
            return cell(i, in);
        } else {
            return window(i, in);
        }
    }
    __device__ const T* at(const Row& r, const Depth& d) const {
        if constexpr (pixels_are_rows) {
            return element(r, d);
        } else {
            return element(d, r);
        }
    }

  private:
    __device__ Window window(std::int64_t i, bool in) const {
        if (!in) return {data, nowhere, nowhere};
        const Pixel at = pixels.at(i);
        return {data + at.n * H * W * C, at.h * stride_h - pad_h, at.w * stride_w - pad_w};
    }
    __device__ Cell cell(std::int64_t k, bool in) const {
        if (!in) return {nowhere, nowhere, 0};
        const Tap tap = taps.at(k);
        return {tap.u * dil_h, tap.v * dil_w, tap.c};
    }
    __device__ const T* element(const Window& window, const Cell& cell) const {
        // Step 1: find the pixels of each window.
        const int h = window.h + cell.h, w = window.w + cell.w;
        if (unsigned(h) >= unsigned(H) || unsigned(w) >= unsigned(W)) return nullptr;
        return window.image + (std::int64_t(h) * W + w) * C + cell.c;
    }
};

// ---- the upstream gradient -----------------------------------------------------------------------------

// What follows a convolution in the same fused operation: nothing, a ReLU or a max-pool (with or without
// ReLU).
struct Fused {
    const void* relu_y;          // the output of the ReLU, or nullptr
    const std::uint8_t* winner;  // which cell won each window of the max-pool, or nullptr
    PoolParams pool;
};

// The gradient of the convolution's own output (N,OH,OW,F), which is never stored: it is looked up in dy
// and in the mask of what follows.
template <typename T, bool fused>
struct Upstream {
    const T *dy, *relu_y;
    const std::uint8_t* winner;
    std::int64_t F;
    int OH, OW, pool_OH, pool_OW, pool_KH, pool_KW, pool_stride_h, pool_stride_w;
    Divisor by_stride_h, by_stride_w;

    Upstream(const T* dy_, const ConvParams& p, const Fused& f)
        : dy(dy_),
          relu_y(static_cast<const T*>(f.relu_y)),
          winner(f.winner),
          F(p.F),
          OH(narrow(p.OH, "OH")),
          OW(narrow(p.OW, "OW")) {
        if (!winner) return;
        pool_OH = int(f.pool.OH);
        pool_OW = int(f.pool.OW);
        pool_KH = int(f.pool.KH);
        pool_KW = int(f.pool.KW);
        pool_stride_h = narrow(f.pool.stride_h, "stride");
        pool_stride_w = narrow(f.pool.stride_w, "stride");
        by_stride_h = Divisor(f.pool.stride_h);
        by_stride_w = Divisor(f.pool.stride_w);
    }

    // Where channel 0 of a pixel of the map lies in dy.  With a pool: which cell of its window the pixel
    // is, and whether it lies in a window at all.
    struct At {
        std::int64_t offset;
        int cell;
        bool in;
    };

    __device__ At pixel(const Pixel& at) const {
        if (!fused || !winner) return {((at.n * OH + at.h) * OW + at.w) * F, 0, true};
        // windows do not overlap, so a pixel lies in one or in none
        const int h = by_stride_h.quotient(at.h), w = by_stride_w.quotient(at.w);
        const int u = at.h - h * pool_stride_h, v = at.w - w * pool_stride_w;
        const bool in = h < pool_OH && w < pool_OW && u < pool_KH && v < pool_KW;
        return {((at.n * pool_OH + h) * pool_OW + w) * F, u * pool_KW + v, in};
    }

    template <int W>
    __device__ Vector<T, W> values(const At& at, int f) const {
        if (!at.in) return {};
        Vector<T, W> dys = load<W>(dy + at.offset + f);
        if (!fused) return dys;
        if (winner) {
            const auto won = load<W>(winner + at.offset + f);
            for (int k = 0; k < W; ++k) dys.v[k] = won.v[k] == at.cell ? dys.v[k] : T(0);
        } else {
            const auto y = load<W>(relu_y + at.offset + f);
            for (int k = 0; k < W; ++k) dys.v[k] = relu_gradient(y.v[k], dys.v[k]);
        }
        return dys;
    }
};

// dy as the gradient to the weight reads it: rows are filters, k are pixels.
template <typename T, bool fused>
struct GradientColumns {
    using Element = T;
    static constexpr bool k_contiguous = false, plain = !fused;
    const T* data;
    Upstream<T, fused> upstream;
    Pixels pixels;
    int group_filters;
    int first_filter = 0;

    struct Row {
        int f;
        bool in;
    };
    using Depth = typename Upstream<T, fused>::At;

    GradientColumns(const T* dy, const ConvParams& p, const Fused& f)
        : data(dy), upstream(dy, p, f), pixels(p.OH, p.OW), group_filters(int(p.F / p.groups)) {}

    __device__ void select(int group) { first_filter = group * group_filters; }
    __device__ Row row(std::int64_t f, bool in) const { return {first_filter + int(f), in}; }
    __device__ Depth depth(std::int64_t k, bool in) const {
        if (!in) return {0, 0, false};
        if (!fused || !upstream.winner) return {k * upstream.F, 0, true};
        return upstream.pixel(pixels.at(k));
    }
    __device__ const T* at(const Row& r, const Depth& d) const {
        return r.in && d.in ? upstream.dy + d.offset + r.f : nullptr;
    }
    template <int W>
    __device__ Vector<T, W> values(const Row& r, const Depth& d) const {
        return r.in ? upstream.template values<W>(d, r.f) : Vector<T, W>{};
    }
};

// ---- the gradient to the input: one product for each phase of the stride ---------------------------

template <typename T, bool fused>
struct GradientPatches {
    using Element = T;
    static constexpr bool k_contiguous = true, plain = !fused;
    const T* data;
    Upstream<T, fused> upstream;
    int first_h, first_w, step_h, step_w, group_filters;
    int first_filter = 0;
    Pixels inputs;
    Taps taps;

    struct Row {
        std::int64_t n;
        int h, w;
        bool in;
    };
    struct Depth {
        int h, w, f;
        bool in;
    };

    GradientPatches(const T* dy, const ConvParams& p, const Fused& f, const Axis& down, const Axis& across)
        : data(dy),
          upstream(dy, p, f),
          first_h(int(down.first)),
          first_w(int(across.first)),
          step_h(int(down.step)),
          step_w(int(across.step)),
          group_filters(int(p.F / p.groups)),
          inputs(down.inputs, across.inputs),
          taps(across.taps, p.F / p.groups) {}

    __device__ void select(int group) { first_filter = group * group_filters; }
    __device__ Row row(std::int64_t i, bool in) const {
        if (!in) return {0, 0, 0, false};
        const Pixel at = inputs.at(i);
        return {at.n, at.h + first_h, at.w + first_w, true};
    }
    __device__ Depth depth(std::int64_t k, bool in) const {
        if (!in) return {0, 0, 0, false};
        const Tap tap = taps.at(k);
        return {tap.u * step_h, tap.v * step_w, first_filter + tap.c, true};
    }
    __device__ bool meets(const Row& r, const Depth& d) const {
        return r.in && d.in && unsigned(r.h - d.h) < unsigned(upstream.OH) &&
               unsigned(r.w - d.w) < unsigned(upstream.OW);
    }
    __device__ const T* at(const Row& r, const Depth& d) const {
        return meets(r, d) ? data + upstream.pixel({r.n, r.h - d.h, r.w - d.w}).offset + d.f : nullptr;
    }
    template <int W>
    __device__ Vector<T, W> values(const Row& r, const Depth& d) const {
        if (!meets(r, d)) return {};
        return upstream.template values<W>(upstream.pixel({r.n, r.h - d.h, r.w - d.w}), d.f);
    }
};

// The weight (F,KH,KW,C/groups) restricted to the taps of a phase: rows are channels, k = (tap, filter).
template <typename T>
struct TapFilters {
    using Element = T;
    static constexpr bool k_contiguous = false, plain = true;
    const T* data;
    std::int64_t KH, KW, channels, filters;
    int start_h, start_w, every_h, every_w;
    Taps taps;

    struct Row {
        std::int64_t offset;
        bool in;
    };
    using Depth = Row;

    TapFilters(const T* weight, const ConvParams& p, const Axis& down, const Axis& across)
        : data(weight),
          KH(p.KH),
          KW(p.KW),
          channels(p.C / p.groups),
          filters(p.F / p.groups),
          start_h(int(down.start)),
          start_w(int(across.start)),
          every_h(int(down.every)),
          every_w(int(across.every)),
          taps(across.taps, filters) {}

    __device__ void select(int group) { data += group * filters * KH * KW * channels; }
    __device__ Row row(std::int64_t c, bool in) const { return {c, in}; }
    __device__ Depth depth(std::int64_t k, bool in) const {
        if (!in) return {0, false};
        const Tap tap = taps.at(k);
        return {((tap.c * KH + start_h + tap.u * every_h) * KW + start_w + tap.v * every_w) * channels,
                true};
    }
    __device__ const T* at(const Row& r, const Depth& d) const {
        return r.in && d.in ? data + r.offset + d.offset : nullptr;
    }
};

}  // namespace minicnn::cuda
