// Which rows (or columns) of a source one output reads: the geometry of a correlation along one axis.
#pragma once

#include <cstdint>

#include "../../conv2d_ops.h"

namespace minicnn {

// Output i reads the source at i*stride + first + tap*step for each tap < count.
struct Taps {
    std::int64_t first, step, count, stride;

    // The smallest and the largest place that output 0 reads.
    std::int64_t lowest() const { return first + (step < 0 ? (count - 1) * step : 0); }
    std::int64_t highest() const { return first + (step > 0 ? (count - 1) * step : 0); }
    // All that an output reads lies in [begin, end).
    std::int64_t begin(std::int64_t output) const { return output * stride + lowest(); }
    std::int64_t end(std::int64_t output) const { return output * stride + highest() + 1; }

    struct Range {
        std::int64_t first, last;
    };

    // The taps through which some output of [from, to) reads inside a source of this size.  Through the
    // other taps all of them read padding.
    Range inside(std::int64_t from, std::int64_t to, std::int64_t size) const {
        const auto reads = [&](std::int64_t tap) {
            const std::int64_t at = first + tap * step;
            return (to - 1) * stride + at >= 0 && from * stride + at < size;
        };
        Range range{0, count};
        while (range.first < count && !reads(range.first)) ++range.first;
        while (range.last > range.first && !reads(range.last - 1)) --range.last;
        return range;
    }
    // Whether more than an eighth of what the outputs read is padding: then leaving it out saves more than
    // it costs.
    bool reads_much_padding(std::int64_t outputs, std::int64_t size) const {
        std::int64_t used = 0;
        for (std::int64_t tap = 0; tap < count; ++tap) {
            const Range reading = outputs_inside(tap, 0, outputs, size);
            used += reading.last - reading.first;
        }
        return 8 * used < 7 * outputs * count;
    }
    // The outputs of [from, to) that read inside a source of this size through one tap.
    Range outputs_inside(std::int64_t tap, std::int64_t from, std::int64_t to, std::int64_t size) const {
        const auto reads = [&](std::int64_t output) {
            const std::int64_t at = output * stride + first + tap * step;
            return at >= 0 && at < size;
        };
        while (from < to && !reads(from)) ++from;
        while (to > from && !reads(to - 1)) --to;
        return {from, to};
    }
};

// The taps of the forward pass along each axis.
inline Taps taps_down(const ConvParams& p) { return {-p.pad_h, p.dil_h, p.KH, p.stride_h}; }
inline Taps taps_across(const ConvParams& p) { return {-p.pad_w, p.dil_w, p.KW, p.stride_w}; }

}  // namespace minicnn
