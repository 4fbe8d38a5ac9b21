// The operands of a convolution's three products for tensor cores.  core/tensor_tiles.h explains what they
// must have.  Neighbours in memory are taken 16 bytes at a time: their number is a multiple of 4 floats or
// 8 bfloat16, and every array is aligned (tensor_arrays.cu sees to it).
#pragma once

#include "../../conv2d_ops.h"
#include "../core/tensor_cores.h"
#include "indices.h"

namespace minicnn::cuda {

// A matrix in memory.  Element (row, k) is data[row * pitch + k] if k_contiguous, and data[k * pitch + row]
// if not.  The matrices of two groups are `group_step` apart.
template <typename T, bool k_contiguous_>
struct TensorMatrix {
    using Element = T;
    static constexpr bool k_contiguous = k_contiguous_;
    const T* data;
    std::int64_t pitch, group_step;

    using Row = const T*;  // its first element, or nullptr
    using Cursor = std::int64_t;
    using Step = std::int64_t;

    __device__ void select(int group) { data += group * group_step; }
    __device__ Row row(std::int64_t row, bool in) const {
        return in ? data + (k_contiguous ? row * pitch : row) : nullptr;
    }
    __device__ Cursor cursor(std::int64_t k) const { return k_contiguous ? k : k * pitch; }
    __device__ Step step(int by) const { return cursor(by); }
    __device__ void advance(Cursor& cursor, const Step& step) const { cursor += step; }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        return row ? row + cursor : nullptr;
    }
};

// How a window lies in images (N,H,W,C): its pixel (i, j) begins at (i * stride_h + first_h, j * stride_w +
// first_w), and its cell (u, v) lies u * step_h below and v * step_w beside that.
struct WindowPlace {
    int H, W, stride_h, stride_w, first_h, first_w, step_h, step_w;
};

// The window of a convolution as it lies in x.  Distances in an image are counted in 32 bits.
inline WindowPlace place_in_input(const ConvParams& p) {
    const std::int64_t reach_w = larger(p.W, p.KW * p.dil_w) + p.pad_w;
    const std::int64_t reach_h = larger(p.H, p.KH * p.dil_h) + p.pad_h;
    narrow(reach_h * reach_w * (p.C + p.groups * 8), "the elements of an image");
    return {narrow(p.H, "H"),
            narrow(p.W, "W"),
            narrow(p.stride_h, "stride"),
            narrow(p.stride_w, "stride"),
            -narrow(p.pad_h, "padding"),
            -narrow(p.pad_w, "padding"),
            narrow(p.dil_h, "dilation"),
            narrow(p.dil_w, "dilation")};
}

// Patches of images: element (pixel, tap).  They are read by pixel, with k along the taps, or by tap, with
// k along the pixels.
template <typename T, bool pixels_are_rows, typename PixelOrder = Pixels>
struct TensorPatches {
    using Element = T;
    static constexpr bool k_contiguous = pixels_are_rows;
    const T* data;
    std::int64_t C;  // channels of all groups
    int group_channels;
    WindowPlace place;
    PixelOrder pixels;
    Taps taps;

    // Where the first cell of a window lies, in the image and in memory.  There need be no such cell.
    struct Window {
        std::int64_t offset;
        int h, w;
    };
    // How far a cell lies from the first one.
    struct Cell {
        int offset, h, w;
    };
    struct PixelCursor {
        Pixel pixel;
        Window window;
    };
    struct TapCursor {
        Tap tap;
        Cell cell;
    };
    using Row = std::conditional_t<pixels_are_rows, Window, Cell>;
    using Cursor = std::conditional_t<pixels_are_rows, TapCursor, PixelCursor>;
    using Step = std::conditional_t<pixels_are_rows, Tap, Pixel>;
    static constexpr int nowhere = -(1 << 30);

    __device__ void select(int group) { data += std::int64_t(group) * group_channels; }
    __device__ Row row(std::int64_t i, bool in) const {
        if (!in) return {0, nowhere, nowhere};
        if constexpr (pixels_are_rows) {
            return window(pixels.at(i));
        } else {
            return cell(taps.at(i));
        }
    }
    __device__ Cursor cursor(std::int64_t k) const {
        if constexpr (pixels_are_rows) {
            const Tap tap = taps.at(k);
            return {tap, cell(tap)};
        } else {
            const Pixel pixel = pixels.at(k);
            return {pixel, window(pixel)};
        }
    }
    __device__ Step step(int by) const {
        if constexpr (pixels_are_rows) {
            return taps.at(by);
        } else {
            return pixels.at(by);
        }
    }
    __device__ void advance(Cursor& cursor, const Step& step) const {
        if constexpr (pixels_are_rows) {
            taps.advance(cursor.tap, step);
            cursor.cell = cell(cursor.tap);
        } else {
            pixels.advance(cursor.pixel, step);
            cursor.window = window(cursor.pixel);
        }
    }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        if constexpr (pixels_are_rows) {
            return element(row, cursor.cell);
        } else {
            return element(cursor.window, row);
        }
    }
    // Whether cell (u, v) of a pixel's window lies in the image.
    __device__ bool meets(const Pixel& pixel, int u, int v) const {
        const int h = pixel.h * place.stride_h + place.first_h + u * place.step_h;
        const int w = pixel.w * place.stride_w + place.first_w + v * place.step_w;
        return unsigned(h) < unsigned(place.H) && unsigned(w) < unsigned(place.W);
    }

  private:
    __device__ Window window(const Pixel& at) const {
        const int h = at.h * place.stride_h + place.first_h, w = at.w * place.stride_w + place.first_w;
        return {((at.n * place.H + h) * place.W + w) * C, h, w};
    }
    __device__ Cell cell(const Tap& tap) const {
        const int h = tap.u * place.step_h, w = tap.v * place.step_w;
        return {(h * place.W + w) * int(C) + tap.c, h, w};
    }
    __device__ const T* element(const Window& window, const Cell& cell) const {
        const int h = window.h + cell.h, w = window.w + cell.w;
        const bool in = unsigned(h) < unsigned(place.H) && unsigned(w) < unsigned(place.W);
        return in ? data + (window.offset + cell.offset) : nullptr;
    }
};

// The weight (F,KH,KW,C/groups) restricted to the cells (start + i * every) along each axis: rows are
// channels, k = (cell, filter).
template <typename T>
struct TensorFilters {
    using Element = T;
    static constexpr bool k_contiguous = false;
    const T* data;
    std::int64_t KH, KW, channels, filters;
    int start_h, start_w, every_h, every_w;
    Taps taps;

    using Row = const T*;  // its first element, or nullptr
    struct Cursor {
        Tap tap;
        std::int64_t offset;
    };
    using Step = Tap;

    __device__ void select(int group) { data += group * filters * KH * KW * channels; }
    __device__ Row row(std::int64_t c, bool in) const { return in ? data + c : nullptr; }
    __device__ Cursor cursor(std::int64_t k) const {
        const Tap tap = taps.at(k);
        return {tap, offset(tap)};
    }
    __device__ Step step(int by) const { return taps.at(by); }
    __device__ void advance(Cursor& cursor, const Step& step) const {
        taps.advance(cursor.tap, step);
        cursor.offset = offset(cursor.tap);
    }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        return row ? row + cursor.offset : nullptr;
    }
    __device__ std::int64_t offset(const Tap& tap) const {
        return ((tap.c * KH + start_h + tap.u * every_h) * KW + start_w + tap.v * every_w) * channels;
    }
};

}  // namespace minicnn::cuda
