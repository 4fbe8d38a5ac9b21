// How a correlation is laid out for the tile unit.  It depends on the shape alone.
//
// A tile takes 16 pixels whose values begin equally far apart, and 32 contiguous values of each.  In a
// channels-last image the values under one row of taps are contiguous, so tiles are read from a padded band
// of the image itself.  Where that would leave much of the tiles unused, because maps or runs are short,
// the values under all taps are first gathered into a row of a matrix for each pixel.
#pragma once

#include <cstdint>

#include "../conv2d/taps.h"
#include "tile_packing.h"

namespace minicnn {

// out(n,i,j,f) = bias(f) + the sum over taps u,v and channels c of source(n, h(i,u), w(j,v), c) * filter.
// The steps of the taps are positive.
struct TileCorrelation {
    const bfloat16* source;  // (N,H,W,C)
    const bfloat16* mask;    // like source, or nullptr: where it is <= 0, the source counts as 0
    std::int64_t N, H, W, C;
    Taps h, w;
    std::int64_t rows, cols, F;  // of the output
    bool pooled = false;         // by 2x2: rows and cols are even
    // If given, source and winner are (N,pooled_h,pooled_w,C), the results of a 2x2 max-pool over
    // (N,H,W,C).
    const std::uint8_t* winner = nullptr;
    std::int64_t pooled_h = 0, pooled_w = 0;
};

class TilePlan {
  public:
    explicit TilePlan(const TileCorrelation& c);

    bool gathered = false;
    bool joined;  // a row of taps is one run; otherwise each tap is one
    TileRuns runs;
    // A band of the source: where its first column lies in the image, and how many pixels apart its rows
    // are. Neighbouring rows share the padding between them.
    std::int64_t first_col, band_width;
    // The output's pixels in groups of 16: those of each row by themselves, or where `flat`, those of a
    // whole segment of rows as they follow each other in the band or in the matrix.
    bool flat;
    std::int64_t pitch;             // sums from one row of the output to the next
    std::int64_t segment_rows = 1;  // so many rows are summed before they are stored

    std::int64_t groups_per_row() const { return (cols_ + tile_rows - 1) / tile_rows; }
    std::int64_t groups(std::int64_t rows) const {
        return flat ? ((rows - 1) * pitch + cols_ + tile_rows - 1) / tile_rows : rows * groups_per_row();
    }

    // An estimate of the cycles that the whole correlation takes.
    double cost(const TileCorrelation& c) const {
        return cost_per_row(c) * static_cast<double>(c.N * c.rows);
    }

  private:
    void choose_segment(std::int64_t most_pixels, std::int64_t most_rows, std::int64_t unit);
    double cost_per_row(const TileCorrelation& c) const;
    void try_rows_alone(const TileCorrelation& c);
    void try_gathering(const TileCorrelation& c);

    std::int64_t cols_;
};

}  // namespace minicnn
