// The sums run over pixels: rows of tiles hold 16 filters of the gradient, transposed, and 16 channels of x
// in pairs of pixels (pairs_weight.h).
//
// A band of rows of the map is packed at a time: the gradient once, and x once for each column of taps,
// which shifts its pixels.  Each row of taps begins at another row of the packed x.  Where maps are small
// or the stride is large, x is packed once for each tap instead, and a band goes over several images. Few
// channels are multiplied together with their neighbours in a row of taps, as if they were channels of one
// pixel.
//
// The sums of a band stay in tile registers; between bands they are kept in float.  The batch is cut into a
// fixed number of chunks with sums of their own, which are added in order; and where dw is large, its
// filters and channels are cut into parts.
#include "tile_weight.h"

#include <atomic>

#include "../core/batch_split.h"
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "pairs_weight.h"
#include "tile_emulation.h"

namespace minicnn {
namespace {

constexpr std::int64_t words_in_tile = tile_rows * tile_cols, block_words = 4 * words_in_tile;
constexpr bfloat16 one{0x3f80};

// What a block of products sums over: `segments` stretches of `depth` tiles each.
struct Depth {
    std::int64_t segments, depth;
};

// Two neighbouring tiles of one side lie `apart` words from each other.  Along the depth a tile is followed
// by the next one, or by itself if its rows are all the same; segments lie `segment` words apart.
struct Side {
    const std::uint32_t* at;
    std::int64_t apart, segment;
    bool same_rows = false;
};

// sums (m x n tiles) += left (m tiles high) @ right (n tiles wide).
template <typename Unit, int m, int n>
void multiply_block(const Side& left, const Side& right, const Depth& over, float* sums, bool first) {
    unroll<m * n>([&](auto i) __attribute__((always_inline)) {
        if (first) {
            Unit::template zero<i>();
        } else {
            Unit::template load<i>(sums + i * words_in_tile, tile_bytes);
        }
    });
    constexpr int a_tile = 4, b_tile = 6;
    const std::int64_t b_row = right.same_rows ? 0 : tile_bytes,
                       b_step = right.same_rows ? 0 : words_in_tile;
    for (std::int64_t segment = 0; segment < over.segments; ++segment) {
        const std::uint32_t* a = left.at + segment * left.segment;
        const std::uint32_t* b = right.at + segment * right.segment;
        for (std::int64_t k = 0; k < over.depth; ++k, a += words_in_tile, b += b_step) {
            unroll<m>([&](auto i) __attribute__((always_inline)) {
                Unit::template load<a_tile + i>(a + i * left.apart, tile_bytes);
            });
            unroll<n>([&](auto j) __attribute__((always_inline)) {
                Unit::template load<b_tile + j>(b + j * right.apart, b_row);
                unroll<m>([&](auto i) __attribute__((always_inline)) {
                    Unit::template multiply<i * n + j, a_tile + i, b_tile + j>();
                });
            });
        }
    }
    unroll<m * n>([&](auto i) __attribute__((always_inline)) {
        Unit::template store<i>(sums + i * words_in_tile, tile_bytes);
    });
}

template <typename Unit>
void multiply(int m, int n, const Side& left, const Side& right, const Depth& over, float* sums,
              bool first) {
    const auto block = m == 2 ? (n == 2 ? multiply_block<Unit, 2, 2> : multiply_block<Unit, 2, 1>)
                              : (n == 2 ? multiply_block<Unit, 1, 2> : multiply_block<Unit, 1, 1>);
    block(left, right, over, sums, first);
}

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
        if (p.KH == 1 && p.KW == 1 && p.H == p.OH && p.W == p.OW && p.pad_h == 0 && p.pad_w == 0 &&
            p.stride_h == 1 && p.stride_w == 1) {
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
    static constexpr std::int64_t band_pixels = 1024;
    bool shares_rows;                // each row of x is packed once for all rows of taps
    std::int64_t pairs;              // of pixels in a row of the map
    std::int64_t rows, all_rows;     // of the map: in a segment, and in what segments are cut from
    std::int64_t per_image;          // segments in what they are cut from
    std::int64_t segments, count;    // segments of a band, and of all bands
    std::int64_t copies, copy_rows;  // how often x is packed, and rows that a segment has in a copy

    MapBands(const Filters& filters, std::int64_t left_tiles) : pairs((filters.p.OW + 1) / 2) {
        const ConvParams& p = filters.p;
        const std::int64_t window = (p.KH - 1) * p.dil_h;
        cut(p.OH);
        // Both in cycles for a tile's width of channels and a tile's depth of pixels.
        constexpr double pack = 22, multiply = 16;
        const double product = multiply * static_cast<double>(left_tiles * p.KH * filters.KW);
        const double rounding =
            static_cast<double>(depth_of(rows) * pairs_in_tile) / static_cast<double>(rows * pairs);
        const double shared = rounding * product + pack * static_cast<double>(filters.KW) *
                                                       static_cast<double>(rows + window) /
                                                       static_cast<double>(rows);
        const double tapwise = product + pack * static_cast<double>(filters.KW * p.KH);
        shares_rows = p.stride_h == 1 && shared <= tapwise;
        if (!shares_rows) cut(p.N * p.OH);
        count = (shares_rows ? p.N : 1) * per_image;
        segments = std::clamp<std::int64_t>(band_pixels / (2 * pairs * rows), 1, count);
        if (per_image > 1) segments = 1;
        copies = filters.KW * (shares_rows ? 1 : p.KH);
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
    void cut(std::int64_t from_rows) {
        all_rows = from_rows;
        const std::int64_t most = std::max<std::int64_t>(1, band_pixels / (2 * pairs));
        per_image = (all_rows + most - 1) / most;
        rows = (all_rows + per_image - 1) / per_image;
        per_image = (all_rows + rows - 1) / rows;
    }
};

template <typename Unit>
class TileWeight {
  public:
    TileWeight(const bfloat16* dy, const bfloat16* relu_y, const std::uint8_t* winner, const bfloat16* x,
               bool needs_db, const ConvParams& conv, Scratch& scratch)
        : dy_(dy),
          relu_y_(relu_y),
          winner_(winner),
          x_(x),
          needs_db_(needs_db),
          filters_(conv, winner != nullptr),
          p_(filters_.p),
          F_blocks_(blocks_of(p_.F)),
          C_blocks_(blocks_of(filters_.C)),
          taps_(p_.KH * filters_.KW),
          bands_(filters_, tiles_of(p_.F)),
          split_(bands_.bands(), F_blocks_ * C_blocks_,
                 sums_size() * static_cast<std::int64_t>(sizeof(float))),
          F_parts_(count_F_parts()),
          C_parts_(std::min(split_.parts / F_parts_, C_blocks_)) {
        sums_ = scratch.take<float>(split_.chunks * sums_size());
    }

    bool run(float* dw, float* db) const {
        const std::int64_t parts = F_parts_ * C_parts_;
        std::atomic<bool> finite{true};
        parallel_for(0, split_.chunks * parts, 1, [&](std::int64_t first, std::int64_t last) {
            const TileConfiguration<Unit> tiles;
            for (std::int64_t task = first; task < last; ++task) {
                const Part part = part_at(task % parts);
                sum(task / parts, part);
                if (split_.chunks == 1 && !finish(part, dw, db)) finite = false;
            }
        });
        if (split_.chunks == 1) return finite;
        parallel_for(0, F_blocks_ * C_blocks_, 1, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t i = first; i < last; ++i) {
                const std::int64_t f = i / C_blocks_, c = i % C_blocks_;
                if (!finish({{f, f + 1, p_.F}, {c, c + 1, filters_.C}}, dw, db)) finite = false;
            }
        });
        return finite;
    }

  private:
    // The sums of a chunk: for each block of filters, each block of channels and each tap 2x2 tiles, and
    // at the end for each block of filters two tiles whose columns are db.
    std::int64_t sums_size() const { return F_blocks_ * (C_blocks_ * taps_ + 1) * block_words; }
    float* sums(std::int64_t chunk, std::int64_t f, std::int64_t c, std::int64_t tap) const {
        return sums_ + chunk * sums_size() + ((f * C_blocks_ + c) * taps_ + tap) * block_words;
    }
    float* bias_sums(std::int64_t chunk, std::int64_t f) const {
        return sums_ + chunk * sums_size() + (F_blocks_ * C_blocks_ * taps_ + f) * block_words;
    }

    // A part is some blocks of filters times some blocks of channels, and packs both.  So many parts of
    // the filters that the least is packed.
    std::int64_t count_F_parts() const {
        constexpr std::int64_t pack_dy = 90, pack_x = 22;
        std::int64_t best = 1, least = INT64_MAX;
        for (std::int64_t parts = 1; parts <= std::min(split_.parts, F_blocks_); parts *= 2) {
            if (split_.parts / parts > C_blocks_) continue;
            const std::int64_t cost =
                parts * pack_x * C_blocks_ * bands_.copies + split_.parts / parts * pack_dy * F_blocks_;
            if (cost < least) best = parts, least = cost;
        }
        return best;
    }

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
    Part part_at(std::int64_t part) const {
        const std::int64_t f = part / C_parts_, c = part % C_parts_;
        return {{F_blocks_ * f / F_parts_, F_blocks_ * (f + 1) / F_parts_, p_.F},
                {C_blocks_ * c / C_parts_, C_blocks_ * (c + 1) / C_parts_, filters_.C}};
    }

    void sum(std::int64_t chunk, const Part& part) const {
        const std::int64_t depth = bands_.depth_of(bands_.rows);
        const std::int64_t left_size = part.F.tiles() * bands_.segments * depth * words_in_tile;
        const std::int64_t right_size = bands_.copies * part.C.tiles() * right_apart();
        Scratch scratch;
        std::uint32_t* left = scratch.take<std::uint32_t>(left_size);
        std::uint32_t* right = scratch.take<std::uint32_t>(right_size);
        std::uint32_t* staged = scratch.take<std::uint32_t>(2 * depth * words_in_tile);
        bfloat16* padded_row = scratch.take<bfloat16>(row_width() * p_.C);
        // What a tile reads beyond the last row must be the same in every run.
        std::fill_n(right, right_size, 0u);
        for (std::int64_t band = split_.first_unit(chunk); band < split_.first_unit(chunk + 1); ++band) {
            const std::int64_t begin = band * bands_.segments;
            const std::int64_t segments = std::min(bands_.segments, bands_.count - begin);
            for (std::int64_t i = 0; i < segments; ++i) {
                const MapBands::Rows rows = bands_.segment(begin + i);
                pack_dy(part.F, rows, staged, left + i * depth * words_in_tile);
                pack_x(part.C, rows, right + i * right_segment(), padded_row);
            }
            const std::int64_t used = segments > 1 ? depth : bands_.depth_of(bands_.segment(begin).count());
            multiply_band(chunk, part, left, right, {segments, used}, band == split_.first_unit(chunk));
        }
    }

    // How far tiles of one side lie apart, and segments of x.
    std::int64_t left_apart() const {
        return bands_.segments * bands_.depth_of(bands_.rows) * words_in_tile;
    }
    std::int64_t right_apart() const { return bands_.copy_pairs() * tile_cols; }
    std::int64_t right_segment() const { return bands_.copy_rows * bands_.pairs * tile_cols; }

    // dy's rows as pairs, then transposed: left[tile of filters][segment][depth][filter][pair].
    void pack_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged, std::uint32_t* left) const {
        const std::int64_t depth = bands_.depth_of(rows.count()), apart = depth * words_in_tile;
        const std::int64_t used =
            ((rows.count() - 1) * bands_.pairs + (filters_.row_pixels(rows.last - 1) + 1) / 2) * tile_cols;
        for (std::int64_t b = F.first; b < F.last; ++b) {
            for (std::int64_t row = rows.first; row < rows.last; ++row) {
                std::uint32_t* to = staged + (row - rows.first) * bands_.pairs * tile_cols;
                if (F.width(b) == 2) {
                    pack_dy_row<2>(row, b * block_channels, to, apart);
                } else {
                    pack_dy_row<1>(row, b * block_channels, to, apart);
                }
            }
            for (int t = 0; t < F.width(b); ++t) {
                std::uint32_t* from = staged + t * apart;
                std::fill(from + used, from + apart, 0u);
                for (std::int64_t k = 0; k < apart; k += words_in_tile) {
                    transpose_tile(from + k, left + (F.tile(b) + t) * left_apart() + k);
                }
            }
        }
    }

    template <int tiles>
    void pack_dy_row(std::int64_t row, std::int64_t channel, std::uint32_t* to, std::int64_t apart) const {
        if (winner_) return pack_pooled_row<tiles>(row, channel, to, apart);
        const std::int64_t start = row * p_.OW * p_.F + channel, size = filters_.pixels * p_.F,
                           pixels = filters_.row_pixels(row);
        if (relu_y_) {
            const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
                const std::int64_t place = start + i * p_.F;
                return MaskedPixel{dy_ + place, relu_y_ + place, size - place};
            };
            pack_pairs<tiles>(pixels, at, to, apart);
        } else {
            const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
                const std::int64_t place = start + i * p_.F;
                return PlainPixel{dy_ + place, size - place};
            };
            pack_pairs<tiles>(pixels, at, to, apart);
        }
    }

    // A row of the map from the pooled gradient: each pair is the upper or the lower half of a window.
    template <int tiles>
    void pack_pooled_row(std::int64_t row, std::int64_t channel, std::uint32_t* to,
                         std::int64_t apart) const {
        const std::int64_t rows = p_.OH / 2, cols = p_.OW / 2, r = row % p_.OH / 2;
        const std::int64_t size = p_.N * rows * cols * p_.F;
        const auto lower = static_cast<std::uint8_t>(row % p_.OH % 2 * 2);
        std::int64_t place = ((row / p_.OH * rows + r) * cols) * p_.F + channel;
        const std::int64_t windows = r < rows ? cols : 0;
        for (std::int64_t i = 0; i < windows; ++i, place += p_.F, to += tile_cols) {
            const auto cell = [&](std::uint8_t number) __attribute__((always_inline)) {
                return PooledPixel{dy_ + place, winner_ + place, number, size - place};
            };
            pack_pair<tiles>(cell(lower), cell(static_cast<std::uint8_t>(lower + 1)), to, apart);
        }
        for (std::int64_t i = windows; i < bands_.pairs; ++i, to += tile_cols) {
            pack_pair<tiles>(NoPixel{}, NoPixel{}, to, apart);
        }
    }

    // The width of a row of x with all that a joined row of taps reads.
    std::int64_t row_width() const { return (p_.OW - 1) * p_.stride_w + p_.KW; }

    // x as pairs: right[copy][tile of channels][segment][row][pair][channel].
    void pack_x(const Blocks& C, MapBands::Rows rows, std::uint32_t* right, bfloat16* padded_row) const {
        const std::int64_t copy_rows = bands_.copy_rows - bands_.rows + rows.count();
        for (std::int64_t row = 0; row < copy_rows; ++row) {
            for (std::int64_t u = 0; u < (bands_.shares_rows ? 1 : p_.KH); ++u) {
                const bfloat16* source = source_row(rows.first, row, u);
                std::uint32_t* to =
                    right + u * filters_.KW * C.tiles() * right_apart() + row * bands_.pairs * tile_cols;
                if (filters_.joined) {
                    pack_joined_row(C, source, padded_row, to);
                } else {
                    pack_row(C, source, filters_.row_pixels(rows.first + (bands_.shares_rows ? 0 : row)),
                             to);
                }
            }
        }
    }

    // Row `row` of a copy as a row of x, or nullptr in the padding.
    const bfloat16* source_row(std::int64_t first, std::int64_t row, std::int64_t u) const {
        const std::int64_t at = bands_.shares_rows ? first : first + row, image = at / p_.OH;
        const std::int64_t h =
            at % p_.OH * p_.stride_h - p_.pad_h + (bands_.shares_rows ? row : u * p_.dil_h);
        return h < 0 || h >= p_.H ? nullptr : x_ + (image * p_.H + h) * p_.W * p_.C;
    }

    void pack_row(const Blocks& C, const bfloat16* source, std::int64_t pixels, std::uint32_t* to) const {
        const bfloat16* end = x_ + filters_.source_pixels * p_.C;
        const std::int64_t apart = right_apart();
        for (std::int64_t v = 0; v < filters_.KW; ++v) {
            for (std::int64_t b = C.first; b < C.last; ++b) {
                const auto pack = C.width(b) == 2 ? pack_source_row<2> : pack_source_row<1>;
                pack(source ? source + b * block_channels : nullptr, end, pixels, p_.W, p_.C, p_.stride_w,
                     v * p_.dil_w - p_.pad_w, to + (v * C.tiles() + C.tile(b)) * apart, apart);
            }
        }
    }

    void pack_joined_row(const Blocks& C, const bfloat16* source, bfloat16* padded_row,
                         std::uint32_t* to) const {
        const std::int64_t width = row_width(), apart = right_apart();
        if (source) {
            const std::int64_t before = std::min(p_.pad_w, width);
            const std::int64_t inside = std::clamp<std::int64_t>(width - before, 0, p_.W);
            std::fill_n(padded_row, before * p_.C, bfloat16{});
            std::copy_n(source, inside * p_.C, padded_row + before * p_.C);
            std::fill(padded_row + (before + inside) * p_.C, padded_row + width * p_.C, bfloat16{});
        } else {
            std::fill_n(padded_row, width * p_.C, bfloat16{});
        }
        const std::int64_t step = p_.stride_w * p_.C;
        for (std::int64_t b = C.first; b < C.last; ++b) {
            const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
                const std::int64_t place = i * step + b * block_channels;
                return PlainPixel{padded_row + place, width * p_.C - place};
            };
            std::uint32_t* block_to = to + C.tile(b) * apart;
            if (C.width(b) == 2) {
                pack_pairs<2>(p_.OW, at, block_to, apart);
            } else {
                pack_pairs<1>(p_.OW, at, block_to, apart);
            }
        }
    }

    void multiply_band(std::int64_t chunk, const Part& part, const std::uint32_t* left,
                       const std::uint32_t* right, const Depth& over, bool first) const {
        alignas(tile_bytes) bfloat16 ones[tile_depth];
        std::fill_n(ones, tile_depth, one);
        const Side all_ones{reinterpret_cast<std::uint32_t*>(ones), 0, 0, true};
        const auto& [F, C] = part;
        for (std::int64_t f = F.first; f < F.last; ++f) {
            const Side a{left + F.tile(f) * left_apart(), left_apart(),
                         bands_.depth_of(bands_.rows) * words_in_tile};
            for (std::int64_t c = C.first; c < C.last; ++c) {
                for (std::int64_t tap = 0; tap < taps_; ++tap) {
                    const Side b{right + C.tile(c) * right_apart() + tap_start(C, tap), right_apart(),
                                 right_segment()};
                    multiply<Unit>(F.width(f), C.width(c), a, b, over, sums(chunk, f, c, tap), first);
                }
            }
            if (needs_db_ && C.first == 0) {
                multiply<Unit>(F.width(f), 1, a, all_ones, over, bias_sums(chunk, f), first);
            }
        }
    }

    // Where the packed x of a tap begins.
    std::int64_t tap_start(const Blocks& C, std::int64_t tap) const {
        const std::int64_t copy = C.tiles() * right_apart(), u = tap / filters_.KW, v = tap % filters_.KW;
        return bands_.shares_rows ? v * copy + u * p_.dil_h * bands_.pairs * tile_cols : tap * copy;
    }

    // Brings the sums of a part into dw and db.  It is false if one is not finite.
    bool finish(const Part& part, float* dw, float* db) const {
        bool finite = true;
        for (std::int64_t f = part.F.first; f < part.F.last; ++f) {
            for (std::int64_t c = part.C.first; c < part.C.last; ++c) finite &= add_chunks(f, c, dw);
            if (part.C.first == 0 && db) finite &= add_bias_chunks(f, db);
        }
        return finite;
    }

    // Adds the sums of the chunks in order, and brings them into the rows of dw.
    bool add_chunks(std::int64_t f, std::int64_t c, float* dw) const {
        const Blocks F{0, F_blocks_, p_.F}, C{0, C_blocks_, filters_.C};
        const int m = F.width(f), n = C.width(c);
        const std::int64_t filters = std::min<std::int64_t>(block_channels, p_.F - f * block_channels);
        const std::int64_t channels =
            std::min<std::int64_t>(block_channels, filters_.C - c * block_channels);
        bool finite = true;
        for (std::int64_t tap = 0; tap < taps_; ++tap) {
            float total[block_words];
            add_in_order(sums(0, f, c, tap), m * n * words_in_tile, total);
            for (std::int64_t i = 0; i < filters; ++i) {
                const float* row = total + i % m * n * words_in_tile + i / m * tile_cols;
                float* to = dw + ((f * block_channels + i) * taps_ + tap) * filters_.C + c * block_channels;
                if (n == 2 && channels == block_channels) {
                    for (int j = 0; j < tile_cols; ++j) {
                        to[2 * j] = row[j];
                        to[2 * j + 1] = row[words_in_tile + j];
                    }
                } else {
                    for (std::int64_t j = 0; j < channels; ++j) to[j] = row[j % n * words_in_tile + j / n];
                }
                finite &= are_finite(to, channels);
            }
        }
        return finite;
    }

    bool add_bias_chunks(std::int64_t f, float* db) const {
        const int m = Blocks{0, F_blocks_, p_.F}.width(f);
        const std::int64_t filters = std::min<std::int64_t>(block_channels, p_.F - f * block_channels);
        float total[block_words];
        add_in_order(bias_sums(0, f), m * words_in_tile, total);
        for (std::int64_t i = 0; i < filters; ++i) {
            db[f * block_channels + i] = total[i % m * words_in_tile + i / m * tile_cols];
        }
        return are_finite(db + f * block_channels, filters);
    }

    void add_in_order(const float* first_chunk, std::int64_t count, float* total) const {
        std::copy_n(first_chunk, count, total);
        for (std::int64_t chunk = 1; chunk < split_.chunks; ++chunk) {
            const float* more = first_chunk + chunk * sums_size();
            for (std::int64_t i = 0; i < count; ++i) total[i] += more[i];
        }
    }

    static bool are_finite(const float* values, std::int64_t count) {
        std::uint32_t found = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            std::uint32_t bits;
            std::memcpy(&bits, values + i, sizeof bits);
            found |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        return !found;
    }

    const bfloat16 *dy_, *relu_y_;
    const std::uint8_t* winner_;
    const bfloat16* x_;
    bool needs_db_;
    Filters filters_;
    const ConvParams& p_;
    std::int64_t F_blocks_, C_blocks_, taps_;
    MapBands bands_;
    BatchSplit split_;
    std::int64_t F_parts_, C_parts_;
    float* sums_;
};

}  // namespace

bool suits_tile_weight(const ConvParams& p, const PoolParams* pool) {
    if (p.groups != 1) return false;
    return !pool || (pool->KH == 2 && pool->KW == 2 && pool->stride_h == 2 && pool->stride_w == 2 &&
                     pool->pad_h == 0 && pool->pad_w == 0 && pool->dil_h == 1 && pool->dil_w == 1 &&
                     pool->OH == p.OH / 2 && pool->OW == p.OW / 2);
}

template <typename Unit>
bool tile_weight(const bfloat16* dy, const bfloat16* relu_y, const std::uint8_t* winner, const bfloat16* x,
                 float* dw, float* db, const ConvParams& p) {
    if (p.N == 0) {
        std::fill_n(dw, p.F * p.KH * p.KW * p.C, 0.0f);
        if (db) std::fill_n(db, p.F, 0.0f);
        return true;
    }
    Scratch scratch;
    return TileWeight<Unit>(dy, relu_y, winner, x, db != nullptr, p, scratch).run(dw, db);
}

#define INSTANTIATE(Unit)                                                                  \
    template bool tile_weight<Unit>(const bfloat16*, const bfloat16*, const std::uint8_t*, \
                                    const bfloat16*, float*, float*, const ConvParams&);
INSTANTIATE(EmulatedTileUnit)
#if MINICNN_HAS_TILE_UNIT
INSTANTIATE(TileUnit)
#endif

}  // namespace minicnn
