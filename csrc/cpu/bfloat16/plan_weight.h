// What the gradient to filters multiplies, and how its map is cut: the geometry that its packing and its
// products share.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../conv2d_ops.h"
#include "pairs_weight.h"
#include "tile_conv2d.h"

namespace minicnn {

// What is multiplied: a convolution whose rows of taps may have become channels.
struct Filters {
    std::int64_t pixels, source_pixels;  // of the map and of x
    ConvParams p;
    bool joined;  // a row of taps is one tap with KW*C channels
    std::int64_t KW, C;

    Filters(const ConvParams& conv, bool pooled)
        : pixels(conv.N * conv.OH * conv.OW),
          source_pixels(conv.N * conv.H * conv.W),
          p(pooled ? conv : as_rows(conv)),
          joined(joins(p)),
          KW(joined ? 1 : p.KW),
          C(joined ? p.KW * p.C : p.C) {}

    // How many pixels of a row of the map there are, counted over all images.
    std::int64_t row_pixels(std::int64_t row) const { return std::min(p.OW, pixels - row * p.OW); }

  private:
    // A 1x1 convolution knows no images: its pixels are taken in rows that fill a tile, the last of which
    // may be shorter.
    ConvParams as_rows(ConvParams p) const {
        if (is_pointwise(p)) {
            p.N = 1;
            p.H = p.OH = (pixels + tile_depth - 1) / tile_depth;
            p.W = p.OW = tile_depth;
        }
        return p;
    }
    static bool joins(const ConvParams& p) {
        return p.KW > 1 && p.dil_w == 1 && p.C % block_channels != 0 &&
               tiles_of(p.KW * p.C) <= p.KW * tiles_of(p.C);
    }
};

// How the map is cut into bands, and what of x is packed for one.  A band has one segment or several, each
// of which begins at a tile of the depth: rows of one image if rows are shared, else rows of the whole
// batch.
struct MapBands {
    bool shares_rows;                // each row of x is packed once for all rows of taps
    std::int64_t pairs;              // of pixels in a row of the map
    std::int64_t rows, all_rows;     // of the map: in a segment, and in what segments are cut from
    std::int64_t per_image;          // segments in what they are cut from
    std::int64_t segments, count;    // segments of a band, and of all bands
    std::int64_t copies, copy_rows;  // how often x is packed, and rows that a segment has in a copy

    MapBands(const Filters& filters, std::int64_t left_tiles) : pairs((filters.p.OW + 1) / 2) {
        const ConvParams& p = filters.p;
        const std::int64_t window = (p.KH - 1) * p.dil_h;
        cut(p.OH, p.N, filters.KW, filters.C);
        // Both in cycles for a tile's width of channels and a tile's depth of pixels.
        constexpr double pack = 22, multiply = 16;
        const double product = multiply * static_cast<double>(left_tiles * p.KH * filters.KW);
        const double rounding =
            static_cast<double>(depth_of(rows) * pairs_in_tile) / static_cast<double>(rows * pairs);
        const double more_rows = static_cast<double>(rows + window) / static_cast<double>(rows);
        const double shared = rounding * product + more_rows * pack * static_cast<double>(filters.KW);
        const double tapwise = product + pack * static_cast<double>(filters.KW * p.KH);
        shares_rows = p.stride_h == 1 && shared <= tapwise;
        if (!shares_rows) cut(p.N * p.OH, 1, filters.KW * p.KH, filters.C);
        copy_rows = rows + (shares_rows ? window : 0);
    }
    std::int64_t bands() const { return (count + segments - 1) / segments; }
    // The rows [first, last) of a segment, counted over all images.
    struct Rows {
        std::int64_t first, last;
        std::int64_t count() const { return last - first; }
    };
    Rows segment(std::int64_t i) const {
        const std::int64_t start = i / per_image * all_rows, row = i % per_image * rows;
        return {start + row, start + std::min(row + rows, all_rows)};
    }
    std::int64_t depth_of(std::int64_t segment_rows) const {
        return (segment_rows * pairs + pairs_in_tile - 1) / pairs_in_tile;
    }
    // A tile of the last pairs may read beyond the last row.
    std::int64_t copy_pairs() const { return segments * copy_rows * pairs + pairs_in_tile; }

  private:
    // Cuts `images` times `from_rows` rows, so that the packed x of a band, or of a part of its channels,
    // stays in a core's cache.
    void cut(std::int64_t from_rows, std::int64_t images, std::int64_t times_packed,
             std::int64_t channels) {
        constexpr std::int64_t cache_bytes = 1 << 20, least_pixels = 128, most_pixels = 1024,
                               most_tiles = 8;
        const std::int64_t bytes_per_pixel =
            times_packed * std::min(tiles_of(channels), most_tiles) * tile_cols * 2;
        const std::int64_t pixels = std::clamp(cache_bytes / bytes_per_pixel, least_pixels, most_pixels);
        const std::int64_t most_rows = std::max<std::int64_t>(1, pixels / (2 * pairs));
        all_rows = from_rows;
        copies = times_packed;
        rows = (all_rows + (all_rows - 1) / most_rows) / ((all_rows - 1) / most_rows + 1);
        per_image = (all_rows + rows - 1) / rows;
        count = images * per_image;
        segments = per_image > 1 ? 1 : std::clamp<std::int64_t>(pixels / (2 * pairs * rows), 1, count);
    }
};

// Blocks [first, last) of filters or of channels.
struct Blocks {
    std::int64_t first, last, channels;  // channels: all that there are
    std::int64_t tile(std::int64_t block) const { return 2 * (block - first); }
    std::int64_t tiles() const { return std::min(tiles_of(channels), 2 * last) - 2 * first; }
    int width(std::int64_t block) const { return 2 * block + 1 < tiles_of(channels) ? 2 : 1; }
};

struct Part {
    Blocks F, C;
};
}  // namespace minicnn
