// Copies bands with their padding, with what a ReLU's mask leaves out, or with the gradient of a max-pool
// brought to its winners; and gathers windows from bands.
#include "tile_source.h"

#include <cstring>

namespace minicnn {

TileSource::TileSource(const TileCorrelation& c, const TilePlan& plan, Scratch& scratch)
    : c_(c), plan_(plan) {
    inside_ = !c.mask && !c.winner && c.h.begin(0) >= 0 && c.h.end(c.rows - 1) <= c.H &&
              c.w.begin(0) >= 0 && c.w.end(c.cols - 1) <= c.W;
    const std::int64_t runs_per_row = plan.joined ? 1 : c.w.count;
    run_count_ = c.h.count * runs_per_row;
    run_values_ = plan.joined ? c.w.count * c.C : c.C;
    auto* run_offsets = scratch.take<std::int64_t>(run_count_);
    for (std::int64_t r = 0; r < run_count_; ++r) {
        const std::int64_t row = r / runs_per_row * c.h.step, col = r % runs_per_row * c.w.step;
        run_offsets[r] = (row * plan.band_width + col) * c.C;
    }
    run_offsets_ = run_offsets;
    auto* offsets = scratch.take<std::int64_t>(plan.runs.steps());
    offsets_ = offsets;
    for (std::int64_t r = 0; r < plan.runs.count; ++r) {
        for (std::int64_t s = 0; s < plan.runs.steps_per_run(); ++s) {
            *offsets++ = (plan.gathered ? 0 : run_offsets[r]) + s * tile_depth;
        }
    }
}

std::int64_t TileSource::pixel_values() const {
    return plan_.gathered ? plan_.runs.steps() * tile_depth : c_.w.stride * c_.C;
}

// How far beyond the windows of so many rows their tiles reach.
std::int64_t TileSource::spare_values(std::int64_t rows) const {
    const std::int64_t beyond_run = (run_values_ + tile_depth - 1) / tile_depth * tile_depth - run_values_;
    if (plan_.gathered) return beyond_run;
    const std::int64_t last_rows = plan_.flat ? (rows - 1) % plan_.segment_rows + 1 : 1;
    const std::int64_t pixels = (last_rows - 1) * plan_.pitch + c_.cols;
    const std::int64_t unused = plan_.groups(last_rows) * tile_rows - pixels;
    return unused * c_.w.stride * c_.C + beyond_run;
}

const bfloat16* TileSource::band(std::int64_t n, std::int64_t r0, std::int64_t r1, Scratch& own) const {
    const std::int64_t h0 = c_.h.begin(r0), h1 = c_.h.end(r1 - 1), row = plan_.band_width * c_.C;
    const std::int64_t spare = spare_values(r1 - r0), first = inside_ ? plan_.first_col * c_.C : 0;
    if (inside_) {
        const std::int64_t end = ((n * c_.H + h1 - 1) * c_.W + c_.w.end(c_.cols - 1)) * c_.C + spare;
        if (end <= c_.N * c_.H * c_.W * c_.C) return c_.source + (n * c_.H + h0) * row + first;
    }
    // The last row's windows may end in the padding that it would share with the next row.
    const std::int64_t end = c_.w.end(c_.cols - 1) - (inside_ ? 0 : plan_.first_col);
    const std::int64_t rest = std::max<std::int64_t>(0, end - plan_.band_width) * c_.C + spare;
    auto* copy = own.take<bfloat16>((h1 - h0) * row + rest);
    for (std::int64_t h = h0; h < h1; ++h) copy_row(n, h, copy + (h - h0) * row);
    std::fill_n(copy + (h1 - h0) * row, rest, bfloat16{});
    return copy + first;
}

void TileSource::copy_row(std::int64_t n, std::int64_t h, bfloat16* to) const {
    const std::int64_t size = plan_.band_width * c_.C;
    if (h < 0 || h >= c_.H) return void(std::fill_n(to, size, bfloat16{}));
    const std::int64_t col = inside_ ? 0 : plan_.first_col, first = std::max<std::int64_t>(0, col);
    const std::int64_t last =
        std::clamp(inside_ ? c_.W : c_.w.end(c_.cols - 1), first, std::max(first, c_.W));
    bfloat16* inside = to + (first - col) * c_.C;
    const std::int64_t values = (last - first) * c_.C, at = ((n * c_.H + h) * c_.W + first) * c_.C;
    std::fill(to, inside, bfloat16{});
    std::fill(inside + values, std::max(inside + values, to + size), bfloat16{});
    if (c_.winner) return copy_winners(n, h, first, last, inside);
    const bfloat16* source = c_.source + at;
    if (!c_.mask) return void(std::memcpy(inside, source, static_cast<std::size_t>(values) * sizeof *to));
    copy_masked(source, c_.mask + at, values, inside);
}

// The columns [first, last) of row h: the gradient of each pooled value in the cell that won it, else 0.
void TileSource::copy_winners(std::int64_t n, std::int64_t h, std::int64_t first, std::int64_t last,
                              bfloat16* to) const {
    const std::int64_t pooled = std::min(last, 2 * c_.pooled_w);
    if (h >= 2 * c_.pooled_h) return void(std::fill_n(to, (last - first) * c_.C, bfloat16{}));
    for (std::int64_t w = first; w < pooled; ++w, to += c_.C) {
        const std::int64_t at = ((n * c_.pooled_h + h / 2) * c_.pooled_w + w / 2) * c_.C;
        const auto cell = static_cast<std::uint16_t>(h % 2 * 2 + w % 2);
        in_vectors<lanes<std::uint16_t>>(c_.C, [&](auto L, std::int64_t i) __attribute__((always_inline)) {
            const Bits<L> winner = __builtin_convertvector(load<L>(c_.winner + at + i), Bits<L>);
            store(to + i, winner == cell ? load<L>(&c_.source[at + i].bits) : Bits<L>{});
        });
    }
    if (pooled < last) std::fill_n(to, (last - std::max(first, pooled)) * c_.C, bfloat16{});
}

const bfloat16* TileSource::gather(std::int64_t first, std::int64_t last, Scratch& own) const {
    const std::int64_t row = pixel_values();
    const std::int64_t pixels = plan_.groups(last - first) * tile_rows;
    auto* matrix = own.take<bfloat16>(pixels * row + tile_depth);
    bfloat16* to = matrix;
    while (first < last) {
        const std::int64_t n = first / c_.rows, end = std::min(last, (n + 1) * c_.rows);
        Scratch inner;
        gather_rows(band(n, first - n * c_.rows, end - n * c_.rows, inner), end - first, to);
        to += (end - first) * c_.cols * row;
        first = end;
    }
    return matrix;
}

// TileRuns are copied 32 values at a time.  What is copied beyond a run is overwritten by the next one, or
// meets filters that are zero.
void TileSource::gather_rows(const bfloat16* band, std::int64_t rows, bfloat16* matrix) const {
    const std::int64_t row = pixel_values(), pixel = c_.w.stride * c_.C;
    for (std::int64_t r = 0; r < rows; ++r) {
        const bfloat16* from = band + r * row_values();
        for (std::int64_t col = 0; col < c_.cols; ++col, from += pixel, matrix += row) {
            std::memset(static_cast<void*>(matrix + row - tile_depth), 0, tile_bytes);
            bfloat16* to = matrix;
            for (std::int64_t run = 0; run < run_count_; ++run, to += run_values_) {
                for (std::int64_t i = 0; i < run_values_; i += tile_depth) {
                    std::memcpy(static_cast<void*>(to + i), from + run_offsets_[run] + i, tile_bytes);
                }
            }
        }
    }
}

}  // namespace minicnn
