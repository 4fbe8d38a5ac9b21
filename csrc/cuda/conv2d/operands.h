// The operands of a convolution's three products.  core/tiles.h explains what they must have.  Neighbours
// in memory are taken 16 bytes at a time: their number is a multiple of 4 floats, 2 doubles or 8 bfloat16,
// and every array is aligned (product_arrays.cu sees to it).
#pragma once

#include "../../conv2d_ops.h"
#include "../core/product.h"
#include "indices.h"

namespace minicnn::cuda {

// A matrix in memory.  Element (row, k) is data[row * pitch + k] if k_contiguous, and data[k * pitch + row]
// if not.  The matrices of two groups are `group_step` apart.
template <typename T, bool k_contiguous_>
struct Matrix {
    using Element = T;
    static constexpr bool k_contiguous = k_contiguous_;
    const T* data;
    std::int64_t pitch, group_step;

    using Row = int;  // its number, or -1 for a row outside
    using Cursor = std::int64_t;
    using Step = std::int64_t;

    __device__ void select(int group) { data += group * group_step; }
    __device__ Row row(std::int64_t row, bool in) const { return in ? int(row) : -1; }
    __device__ Cursor cursor(std::int64_t k) const { return k_contiguous ? k : k * pitch; }
    __device__ Step step(int by) const { return cursor(by); }
    __device__ void advance(Cursor& cursor, const Step& step) const { cursor += step; }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        return row < 0 ? nullptr : data + (k_contiguous ? row * pitch : row) + cursor;
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
struct Patches {
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
    using Row = std::conditional_t<pixels_are_rows, Window, Cell>;
    using Cursor = std::conditional_t<pixels_are_rows, Tap, Pixel>;
    using Step = Cursor;
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
            return taps.at(k);
        } else {
            return pixels.at(k);
        }
    }
    __device__ Step step(int by) const { return cursor(by); }
    __device__ void advance(Cursor& cursor, const Step& step) const {
        if constexpr (pixels_are_rows) {
            taps.advance(cursor, step);
        } else {
            pixels.advance(cursor, step);
        }
    }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        if constexpr (pixels_are_rows) {
            return element(row, cell(cursor));
        } else {
            return element(window(cursor), row);
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
        // Step 1: find the pixels of each window.
        const int h = window.h + cell.h, w = window.w + cell.w;
        const bool in = unsigned(h) < unsigned(place.H) && unsigned(w) < unsigned(place.W);
        return in ? data + (window.offset + cell.offset) : nullptr;
    }
};

// The weight (F,KH,KW,C/groups) restricted to the cells (start + i * every) along each axis: rows are
// channels, k = (cell, filter).
template <typename T>
struct TapFilters {
    using Element = T;
    static constexpr bool k_contiguous = false;
    const T* data;                                      // the first of these cells
    std::int64_t of_group, of_filter, of_row, of_cell;  // how far the next one lies in memory
    Taps taps;

    using Row = int;  // its number, or -1 for a row outside
    using Cursor = Tap;
    using Step = Tap;

    __device__ void select(int group) { data += group * of_group; }
    __device__ Row row(std::int64_t c, bool in) const { return in ? int(c) : -1; }
    __device__ Cursor cursor(std::int64_t k) const { return taps.at(k); }
    __device__ Step step(int by) const { return taps.at(by); }
    __device__ void advance(Cursor& cursor, const Step& step) const { taps.advance(cursor, step); }
    __device__ const T* at(const Row& row, const Cursor& cursor) const {
        const Tap& tap = cursor;
        return row < 0 ? nullptr : data + row + tap.c * of_filter + tap.u * of_row + tap.v * of_cell;
    }
};

}  // namespace minicnn::cuda
