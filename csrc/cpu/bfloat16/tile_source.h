// What the tiles of a correlation read: bands of its source, and the matrix of the windows in a band.
#pragma once

#include "../core/scratch.h"
#include "tile_plan.h"

namespace minicnn {

class TileSource {
  public:
    TileSource(const TileCorrelation& c, const TilePlan& plan, Scratch& scratch);

    // Where step s of the depth begins, from where a pixel's first value lies.
    const std::int64_t* offsets() const { return offsets_; }
    // From one pixel to the next, and from one row of the output to the next, in values.
    std::int64_t pixel_values() const;
    std::int64_t row_values() const { return c_.h.stride * plan_.band_width * c_.C; }
    std::int64_t bytes_per_row() const {
        return row_values() * static_cast<std::int64_t>(sizeof(bfloat16));
    }

    // The band under the output rows [r0, r1) of image n: where the first pixel of row r0 begins.  It lies
    // in the image where nothing is padded, masked or expanded and no tile reaches beyond the array's end,
    // and otherwise in `own`.
    const bfloat16* band(std::int64_t n, std::int64_t r0, std::int64_t r1, Scratch& own) const;

    // The windows of the pixels of the rows [first, last), counted over all images, one in each row of a
    // matrix in `own`.
    const bfloat16* gather(std::int64_t first, std::int64_t last, Scratch& own) const;

  private:
    void copy_row(std::int64_t n, std::int64_t h, bfloat16* to) const;
    void copy_winners(std::int64_t n, std::int64_t h, std::int64_t first, std::int64_t last,
                      bfloat16* to) const;
    void gather_rows(const bfloat16* band, std::int64_t rows, bfloat16* matrix) const;
    std::int64_t spare_values(std::int64_t rows) const;

    const TileCorrelation& c_;
    const TilePlan& plan_;
    bool inside_;
    std::int64_t run_count_, run_values_;  // the runs in the image
    const std::int64_t *offsets_, *run_offsets_;
};

}  // namespace minicnn
