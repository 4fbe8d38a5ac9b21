// Chooses between reading tiles from the image and gathering windows, by an estimate of their cycles.
#include "tile_plan.h"

namespace minicnn {
namespace {

// So many pixels are summed before they are stored, so that their sums stay in the first cache.
constexpr std::int64_t segment_pixels = 128;
// The matrix of gathered windows stays in the second cache.
constexpr std::int64_t matrix_bytes = 1 << 20;
// What one multiplication of tiles takes, and the gathering of one tile.
constexpr double multiply_cycles = 16, gather_cycles = 96;

}  // namespace

TilePlan::TilePlan(const TileCorrelation& c)
    : joined(c.w.step == 1 || c.w.count <= 1),
      runs{joined ? c.h.count : c.h.count * c.w.count, joined ? c.w.count * c.C : c.C},
      first_col(c.w.begin(0)),
      cols_(c.cols) {
    const std::int64_t last_col = c.w.end(c.cols - 1), left = std::max<std::int64_t>(0, -first_col);
    const std::int64_t inside =
        std::max<std::int64_t>(0, std::min(c.W, last_col) - std::max<std::int64_t>(0, first_col));
    const std::int64_t right = last_col - first_col - left - inside;
    const bool padded = left > 0 || right > 0;
    band_width = padded ? left + inside + std::max<std::int64_t>(0, right - left) : c.W;
    flat = c.h.stride == 1 && c.w.stride == 1;
    pitch = flat ? band_width : groups_per_row() * tile_rows;
    choose_segment(segment_pixels, c.rows, c.pooled ? 2 : 1);
    if (flat) try_rows_alone(c);
    try_gathering(c);
}

// The number of rows that leaves the fewest pixels of tiles unused, and of equally good ones the largest.
void TilePlan::choose_segment(std::int64_t most_pixels, std::int64_t most_rows, std::int64_t unit) {
    segment_rows = unit;
    for (std::int64_t rows = unit; rows <= most_rows && rows * pitch <= most_pixels; rows += unit) {
        if (groups(rows) * segment_rows <= groups(segment_rows) * rows) segment_rows = rows;
    }
}

double TilePlan::cost_per_row(const TileCorrelation& c) const {
    const double filters = static_cast<double>((c.F + tile_cols - 1) / tile_cols);
    const double each_step = filters * multiply_cycles + (gathered ? gather_cycles : 0);
    return static_cast<double>(groups(segment_rows) * runs.steps()) * each_step /
           static_cast<double>(segment_rows);
}

void TilePlan::try_rows_alone(const TileCorrelation& c) {
    TilePlan other = *this;
    other.flat = false;
    other.pitch = groups_per_row() * tile_rows;
    other.choose_segment(segment_pixels, c.rows, c.pooled ? 2 : 1);
    if (other.cost_per_row(c) <= cost_per_row(c)) *this = other;
}

void TilePlan::try_gathering(const TileCorrelation& c) {
    TilePlan other = *this;
    other.gathered = true;
    other.runs = {1, c.h.count * c.w.count * c.C};
    other.flat = true;
    other.pitch = c.cols;
    const std::int64_t bytes_per_pixel = other.runs.steps() * tile_bytes + 1;
    other.choose_segment(std::min(segment_pixels, matrix_bytes / bytes_per_pixel), c.N * c.rows,
                         c.pooled ? 2 : 1);
    if (other.cost_per_row(c) < cost_per_row(c)) *this = other;
}

}  // namespace minicnn
