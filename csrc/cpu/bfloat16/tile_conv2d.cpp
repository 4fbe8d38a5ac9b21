// The forward pass is one correlation.  The gradient to the input is one for each phase of the stride, with
// the filters the other way round.
#include "tile_conv2d.h"

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

TileCorrelation forward_correlation(const bfloat16* x, const ConvParams& shape, const PoolParams* pool) {
    const ConvParams p = pool ? shape : without_rows(shape);
    TileCorrelation c{x, nullptr, p.N, p.H, p.W, p.C, taps_down(p), taps_across(p), p.OH, p.OW, p.F};
    if (pool) {
        c.rows = 2 * pool->OH;
        c.cols = 2 * pool->OW;
        c.pooled = true;
    }
    return c;
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

TileRuns tile_runs(const ConvParams& p, const PoolParams* pool) {
    return TilePlan(forward_correlation(nullptr, p, pool)).runs;
}

PackedTiles tile_filters(const float* weight, const float* bias, const ConvParams& p,
                         const PoolParams* pool, Memory& memory) {
    const TileRuns runs = tile_runs(p, pool);
    const std::int64_t size = runs.count * runs.length;
    return pack_tiles(p.F, runs, bias, memory,
                      [&](std::int64_t f, std::int64_t count, std::int64_t run, std::int64_t k,
                          std::int64_t values, bfloat16* tile) {
                          pack_rows(weight + f * size + run * runs.length + k, size, count, values, tile);
                      });
}

template <typename Unit>
bool tile_forward(const bfloat16* x, const PackedTiles& filters, bfloat16* y, const ConvParams& shape,
                  bool relu) {
    if (shape.N * shape.OH * shape.OW == 0) return true;
    const TileCorrelation c = forward_correlation(x, shape, nullptr);
    return correlate_tiles<Unit>(c, TilePlan(c), filters,
                                 {y, c.rows * c.cols * c.F, c.cols * c.F, c.F, relu});
}

template <typename Unit>
bool tile_pooled_forward(const bfloat16* x, const PackedTiles& filters, bfloat16* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu) {
    if (p.N * pool.OH * pool.OW == 0) return true;
    const TileCorrelation c = forward_correlation(x, p, &pool);
    return correlate_tiles<Unit>(c, TilePlan(c), filters,
                                 {y, pool.OH * pool.OW * p.F, pool.OW * p.F, p.F, relu, winner});
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

#define INSTANTIATE(Unit)                                                                                  \
    template bool tile_forward<Unit>(const bfloat16*, const PackedTiles&, bfloat16*, const ConvParams&,    \
                                     bool);                                                                \
    template bool tile_pooled_forward<Unit>(const bfloat16*, const PackedTiles&, bfloat16*, std::uint8_t*, \
                                            const ConvParams&, const PoolParams&, bool);                   \
    template bool tile_data<Unit>(const bfloat16*, const bfloat16*, const float*, bfloat16*,               \
                                  const ConvParams&);                                                      \
    template bool tile_pooled_data<Unit>(const bfloat16*, const std::uint8_t*, const float*, bfloat16*,    \
                                         const ConvParams&, const PoolParams&);
MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE)

}  // namespace minicnn
