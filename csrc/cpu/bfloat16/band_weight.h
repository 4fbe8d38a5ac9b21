// Packing a band of the map for the gradient to filters: the gradient as rows of pixels for each filter,
// and x as pairs of pixels.
#pragma once

#include "../../bfloat16.h"
#include "plan_weight.h"

namespace minicnn {

constexpr std::int64_t words_in_tile = tile_rows * tile_cols;

// The arrays of tile_weight.h.
struct WeightInput {
    const bfloat16 *dy, *relu_y;
    const std::uint8_t* winner;
    const bfloat16* x;
};

class BandPacker {
  public:
    BandPacker(const WeightInput& in, const Filters& filters, const MapBands& bands)
        : in_(in), filters_(filters), p_(filters.p), bands_(bands) {}

    // How many words tiles of one side lie apart, and segments.
    std::int64_t left_apart() const { return bands_.segments * left_segment(); }
    std::int64_t left_segment() const { return bands_.depth_of(bands_.rows) * words_in_tile; }
    std::int64_t right_apart() const { return bands_.copy_pairs() * tile_cols; }
    std::int64_t right_segment() const { return bands_.copy_rows * bands_.pairs * tile_cols; }

    // Where the packed x of a tap begins.
    std::int64_t tap_start(const Blocks& C, std::int64_t tap) const {
        const std::int64_t copy = C.tiles() * right_apart(), u = tap / filters_.KW, v = tap % filters_.KW;
        return bands_.shares_rows ? v * copy + u * p_.dil_h * bands_.pairs * tile_cols : tap * copy;
    }

    // How many words the packed sides of a part take, and what pack_dy holds meanwhile.
    std::int64_t left_size(const Blocks& F) const { return F.tiles() * left_apart(); }
    std::int64_t right_size(const Blocks& C) const { return bands_.copies * C.tiles() * right_apart(); }
    std::int64_t staged_size() const { return 2 * blocks_together * left_segment(); }
    // A row of x with its padding: all that joined rows of taps read, in values.
    std::int64_t padded_row_size() const { return row_width() * p_.C; }

    // dy's rows as pairs, then transposed: left[tile of filters][segment][depth][filter][pair].
    void pack_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged, std::uint32_t* left) const;

    // x as pairs: right[copy][tile of channels][segment][row][pair][channel].
    void pack_x(const Blocks& C, MapBands::Rows rows, std::uint32_t* right, bfloat16* padded_row) const;

  private:
    // So many blocks of filters are read together, so that long stretches of memory are read.
    static constexpr std::int64_t blocks_together = 4;

    void pack_blocks_of_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged,
                           std::uint32_t* left) const;
    std::int64_t row_width() const { return (p_.OW - 1) * p_.stride_w + p_.KW; }
    template <int tiles>
    void pack_dy_row(std::int64_t row, std::int64_t channel, std::uint32_t* to, std::int64_t apart) const;
    template <int tiles>
    void pack_pooled_row(std::int64_t row, std::int64_t channel, std::uint32_t* to,
                         std::int64_t apart) const;
    const bfloat16* source_row(std::int64_t first, std::int64_t row, std::int64_t u) const;
    void pack_row(const Blocks& C, const bfloat16* source, std::int64_t pixels, std::uint32_t* to) const;
    void pack_joined_row(const Blocks& C, const bfloat16* source, bfloat16* padded_row,
                         std::uint32_t* to) const;

    WeightInput in_;
    const Filters& filters_;
    const ConvParams& p_;
    const MapBands& bands_;
};

}  // namespace minicnn
