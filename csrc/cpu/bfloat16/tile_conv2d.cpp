// The forward pass is one correlation.  The gradient to the input is one for each phase of the stride, with
// the filters the other way round.
#include "tile_conv2d.h"

#include <vector>

#include "../conv2d/phase.h"
#include "../core/elementwise.h"
#include "tile_correlation.h"
#include "tile_units.h"

namespace minicnn {
namespace {

// A 1x1 convolution that reads every pixel once, as one column of pixels: so that no row ends in the middle
// of a tile.
ConvParams without_rows(const ConvParams& p) {
    return is_pointwise(p) ? as_convolution(p.N * p.H * p.W, p.C, p.F) : p;
}

// Two pixels that lie side by side as one with twice the filters: each of these reads the taps of both
// pixels and has zeros where it meets the other's.  The output lies in memory as before.  So a tile reads
// pixels twice as far apart, and both tiles of a block are full where there are 16 filters.
ConvParams two_pixels(ConvParams p) {
    p.F *= 2;
    p.KW += p.stride_w;
    p.stride_w *= 2;
    p.OW /= 2;
    return p;
}

bool can_take_two_pixels(const ConvParams& p) {
    return 2 * p.F <= block_filters && p.dil_w == 1 && p.OW % 2 == 0 && p.OW > 0;
}

TileCorrelation correlation_of(const ConvParams& p) {
    return {nullptr, nullptr, p.N, p.H, p.W, p.C, taps_down(p), taps_across(p), p.OH, p.OW, p.F};
}

bool takes_two_pixels(const ConvParams& p) {
    if (!can_take_two_pixels(p)) return false;
    const TileCorrelation one = correlation_of(p), two = correlation_of(two_pixels(p));
    return TilePlan(two).cost(two) <= TilePlan(one).cost(one);
}

// The convolution that the tiles compute in place of this one.
ConvParams shape_in_tiles(const ConvParams& given, const PoolParams* pool) {
    if (pool) return given;
    const ConvParams p = without_rows(given);
    return takes_two_pixels(p) ? two_pixels(p) : p;
}

TileCorrelation forward_correlation(const ConvParams& p, const PoolParams* pool) {
    TileCorrelation c = correlation_of(p);
    if (pool) {
        c.rows = 2 * pool->OH;
        c.cols = 2 * pool->OW;
        c.pooled = true;
    }
    return c;
}

// The weight (2F,KH,KW+stride,C) of two_pixels(p).
std::vector<float> weight_of_two_pixels(const float* weight, const ConvParams& p) {
    const std::int64_t row = p.KW * p.C, wide_row = row + p.stride_w * p.C, rows = p.F * p.KH;
    std::vector<float> both(static_cast<std::size_t>(2 * rows * wide_row));
    for (std::int64_t r = 0; r < rows; ++r) {
        const float* from = weight + r * row;
        std::copy_n(from, row, both.data() + r * wide_row);
        std::copy_n(from, row, both.data() + (rows + r) * wide_row + p.stride_w * p.C);
    }
    return both;
}

// The taps of a phase in the order of the source's rows (or columns) that they read.
Taps ascending(const Taps& taps) { return {taps.lowest(), std::abs(taps.step), taps.count, taps.stride}; }

template <typename Unit>
bool data_phase(TileCorrelation c, const Phase& down, const Phase& across, const float* weight,
                const CorrelationOutput& out, const ConvParams& p) {
    c.h = ascending(down.taps);
    c.w = ascending(across.taps);
    const TilePlan plan(c);
    const std::int64_t filter = p.KH * p.KW * p.C;
    // The values of a run are those of all filters at one tap after the other; in the source's order the
    // last tap comes first.
    const auto fill = [&](std::int64_t channel, std::int64_t count, std::int64_t run, std::int64_t first,
                          std::int64_t values, bfloat16* tile) {
        const std::int64_t value = run * plan.runs.length + first;
        std::int64_t tap = value / p.F, f = value % p.F;
        const auto at_tap = [&] {
            const std::int64_t u = down.start + (c.h.count - 1 - tap / c.w.count) * down.every;
            const std::int64_t v = across.start + (c.w.count - 1 - tap % c.w.count) * across.every;
            return weight + (u * p.KW + v) * p.C + channel;
        };
        const float* row = at_tap() + f * filter;
        const auto next = [&] {
            if (f++ == p.F) f = 1, ++tap, row = at_tap();
            const float* here = row;
            row += filter;
            return here;
        };
        pack_columns(next, count, values, tile);
    };
    Scratch scratch;
    const PackedTiles filters = pack_tiles(p.C, plan.runs, nullptr, scratch, fill);
    return correlate_tiles<Unit>(c, plan, filters, out);
}

// A gradient that several phases read: its mask is applied once.
void apply_mask(TileCorrelation& c, Scratch& scratch) {
    if (!c.mask) return;
    const std::int64_t size = c.N * c.H * c.W * c.C;
    auto* copy = scratch.take<bfloat16>(size);
    parallel_for(0, size, elements_per_piece, [&](std::int64_t first, std::int64_t last) {
        copy_masked(c.source + first, c.mask + first, last - first, copy + first);
    });
    c.source = copy;
    c.mask = nullptr;
}

// The gradient to the input from `source`, of which everything but the taps and the output is set.
template <typename Unit>
bool all_phases(TileCorrelation source, const float* weight, bfloat16* dx, const ConvParams& p) {
    Scratch scratch;
    if (p.stride_h * p.stride_w > 1) apply_mask(source, scratch);
    for (std::int64_t i = 0; i < std::min(p.stride_h, p.H); ++i) {
        const Phase down = phase_of(i, p.stride_h, p.dil_h, p.pad_h, p.KH);
        for (std::int64_t j = 0; j < std::min(p.stride_w, p.W); ++j) {
            const Phase across = phase_of(j, p.stride_w, p.dil_w, p.pad_w, p.KW);
            source.rows = (p.H - i + p.stride_h - 1) / p.stride_h;
            source.cols = (p.W - j + p.stride_w - 1) / p.stride_w;
            const CorrelationOutput out{dx + (i * p.W + j) * p.C, p.H * p.W * p.C, p.stride_h * p.W * p.C,
                                        p.stride_w * p.C, false};
            if (!data_phase<Unit>(source, down, across, weight, out, p)) return false;
        }
    }
    return true;
}

}  // namespace

TileForward::TileForward(const ConvParams& given, const PoolParams* pool)
    : given_(given),
      shape_(shape_in_tiles(given, pool)),
      correlation_(forward_correlation(shape_, pool)),
      plan_(correlation_) {}

PackedTiles TileForward::pack(const float* weight, const float* bias, Memory& memory) const {
    std::vector<float> weights, biases;
    if (shape_.F > given_.F) {
        weights = weight_of_two_pixels(weight, given_);
        weight = weights.data();
        if (bias) {
            biases.assign(bias, bias + given_.F);
            biases.insert(biases.end(), bias, bias + given_.F);
            bias = biases.data();
        }
    }
    const TileRuns& runs = plan_.runs;
    const std::int64_t size = runs.count * runs.length;
    return pack_tiles(shape_.F, runs, bias, memory,
                      [&](std::int64_t f, std::int64_t count, std::int64_t run, std::int64_t k,
                          std::int64_t values, bfloat16* tile) {
                          pack_rows(weight + f * size + run * runs.length + k, size, count, values, tile);
                      });
}

template <typename Unit>
bool TileForward::run(const bfloat16* x, const PackedTiles& filters, const Result& result) const {
    TileCorrelation c = correlation_;
    if (c.N * c.rows * c.cols == 0) return true;
    c.source = x;
    const std::int64_t every = c.pooled ? 2 : 1, rows = c.rows / every, cols = c.cols / every;
    return correlate_tiles<Unit>(
        c, plan_, filters,
        {result.y, rows * cols * c.F, cols * c.F, c.F, result.relu, result.winner, result.residual});
}

template <typename Unit>
bool tile_data(const bfloat16* dy, const bfloat16* relu_y, const float* weight, bfloat16* dx,
               const ConvParams& shape) {
    const ConvParams p = without_rows(shape);
    if (p.N * p.H * p.W == 0) return true;
    const TileCorrelation source{dy, relu_y, p.N, p.OH, p.OW, p.F, {}, {}, 0, 0, p.C};
    return all_phases<Unit>(source, weight, dx, p);
}

template <typename Unit>
bool tile_pooled_data(const bfloat16* dy, const std::uint8_t* winner, const float* weight, bfloat16* dx,
                      const ConvParams& p, const PoolParams& pool) {
    if (p.N * p.H * p.W == 0) return true;
    const TileCorrelation source{dy, nullptr, p.N, p.OH,  p.OW,   p.F,     {},     {},
                                 0,  0,       p.C, false, winner, pool.OH, pool.OW};
    return all_phases<Unit>(source, weight, dx, p);
}

#define INSTANTIATE(Unit)                                                                               \
    template bool TileForward::run<Unit>(const bfloat16*, const PackedTiles&, const Result&) const;     \
    template bool tile_data<Unit>(const bfloat16*, const bfloat16*, const float*, bfloat16*,            \
                                  const ConvParams&);                                                   \
    template bool tile_pooled_data<Unit>(const bfloat16*, const std::uint8_t*, const float*, bfloat16*, \
                                         const ConvParams&, const PoolParams&);
MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE)

}  // namespace minicnn
