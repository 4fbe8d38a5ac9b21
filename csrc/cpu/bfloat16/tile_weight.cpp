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
#include "tile_units.h"
#include "tile_units.h"

namespace minicnn {
namespace {

constexpr std::int64_t words_in_tile = tile_rows * tile_cols, block_words = 4 * words_in_tile;
constexpr bfloat16 one{0x3f80};

// sums (m x n tiles) += a (m tiles high) @ b (n tiles wide), over `depth` tiles of the depth.
template <typename Unit, int m, int n>
void multiply_block(const std::uint32_t* a, std::int64_t a_apart, const std::uint32_t* b,
                    std::int64_t b_apart, std::int64_t b_step, std::int64_t depth, float* sums,
                    bool first) {
    unroll<m * n>([&](auto i) __attribute__((always_inline)) {
        if (first) {
            Unit::template zero<i>();
        } else {
            Unit::template load<i>(sums + i * words_in_tile, tile_bytes);
        }
    });
    constexpr int left = 4, right = 6;
    const std::int64_t b_row = b_step ? tile_bytes : 0;
    for (std::int64_t k = 0; k < depth; ++k, a += words_in_tile, b += b_step) {
        unroll<m>([&](auto i) __attribute__((always_inline)) {
            Unit::template load<left + i>(a + i * a_apart, tile_bytes);
        });
        unroll<n>([&](auto j) __attribute__((always_inline)) {
            Unit::template load<right + j>(b + j * b_apart, b_row);
            unroll<m>([&](auto i) __attribute__((always_inline)) {
                Unit::template multiply<i * n + j, left + i, right + j>();
            });
        });
    }
    unroll<m * n>([&](auto i) __attribute__((always_inline)) {
        Unit::template store<i>(sums + i * words_in_tile, tile_bytes);
    });
}

// What is multiplied: a convolution whose rows of taps may have become channels.
struct Filters {
    ConvParams p;
    bool joined;  // a row of taps is one tap with KW*C channels
    std::int64_t KW, C;

    Filters(const ConvParams& conv, bool pooled) : p(pooled ? conv : as_rows(conv)), joined(joins(p)) {
        KW = joined ? 1 : p.KW;
        C = joined ? p.KW * p.C : p.C;
    }

  private:
    // A 1x1 convolution knows no images: its pixels are as well taken in rows that fill a tile.
    static ConvParams as_rows(ConvParams p) {
        const std::int64_t pixels = p.N * p.OH * p.OW;
        const bool pointwise = p.KH == 1 && p.KW == 1 && p.H == p.OH && p.W == p.OW && p.pad_h == 0 &&
                               p.pad_w == 0 && p.stride_h == 1 && p.stride_w == 1;
        if (pointwise && pixels % tile_depth == 0) {
            p.N = 1;
            p.H = p.OH = pixels / tile_depth;
            p.W = p.OW = tile_depth;
        }
        return p;
    }
    static bool joins(const ConvParams& p) {
        return p.KW > 1 && p.dil_w == 1 && p.C % block_channels != 0 &&
               tiles_of(p.KW * p.C) <= p.KW * tiles_of(p.C);
    }
};

// How the map is cut into bands, and what of x is packed for one.
struct MapBands {
    bool shares_rows;                // each row of x is packed once for all rows of taps
    std::int64_t rows, pairs;        // rows of the map in a band, and pairs of pixels in a row
    std::int64_t per_image, count;   // bands of an image, if rows are shared; bands in all
    std::int64_t copies, copy_rows;  // how often x is packed, and rows in a copy

    MapBands(const Filters& filters, std::int64_t left_tiles) {
        const ConvParams& p = filters.p;
        const std::int64_t window = (p.KH - 1) * p.dil_h;
        pairs = (p.OW + 1) / 2;
        const std::int64_t most_rows = std::max<std::int64_t>(1, band_pixels / (2 * pairs));
        const std::int64_t shared_bands = (p.OH + most_rows - 1) / most_rows;
        const std::int64_t shared_rows = (p.OH + shared_bands - 1) / shared_bands;
        // Both in cycles for a tile's width of channels and a tile's depth of pixels.
        constexpr double pack = 22, multiply = 16;
        const double product = multiply * static_cast<double>(left_tiles * p.KH * filters.KW);
        const double rounding = static_cast<double>(depth_of(shared_rows) * pairs_in_tile) /
                                static_cast<double>(shared_rows * pairs);
        const double shared_cost = rounding * product + pack * static_cast<double>(filters.KW) *
                                                            static_cast<double>(shared_rows + window) /
                                                            static_cast<double>(shared_rows);
        const double tapwise_cost = product + pack * static_cast<double>(filters.KW * p.KH);
        shares_rows = p.stride_h == 1 && shared_cost <= tapwise_cost;
        if (shares_rows) {
            rows = shared_rows;
            per_image = shared_bands;
            count = p.N * per_image;
            copies = filters.KW;
            copy_rows = rows + window;
        } else {
            rows = std::min(most_rows, p.N * p.OH);
            per_image = 0;
            count = (p.N * p.OH + rows - 1) / rows;
            copies = filters.KW * p.KH;
            copy_rows = rows;
        }
    }
    // The rows [first, last) of a band, counted over all images.
    struct Rows {
        std::int64_t first, last;
    };
    Rows band(std::int64_t i, const ConvParams& p) const {
        if (!shares_rows) return {i * rows, std::min((i + 1) * rows, p.N * p.OH)};
        const std::int64_t image = i / per_image * p.OH, row = i % per_image * rows;
        return {image + row, image + std::min(row + rows, p.OH)};
    }
    std::int64_t depth_of(std::int64_t band_rows) const {
        return (band_rows * pairs + pairs_in_tile - 1) / pairs_in_tile;
    }
    // A tile of the last pairs may read beyond the last row.
    std::int64_t copy_pairs() const { return copy_rows * pairs + pairs_in_tile; }

    static constexpr std::int64_t band_pixels = 512;
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
          split_(bands_.count, F_blocks_ * C_blocks_,
                 sums_size() * static_cast<std::int64_t>(sizeof(float))),
          F_parts_(count_F_parts()),
          C_parts_(std::min(split_.parts / F_parts_, C_blocks_)) {
        sums_ = scratch.take<float>(split_.chunks * sums_size());
    }

    bool run(float* dw, float* db) const {
        const std::int64_t parts = F_parts_ * C_parts_;
        parallel_for(0, split_.chunks * parts, 1, [&](std::int64_t first, std::int64_t last) {
            const TileConfiguration<Unit> tiles;
            for (std::int64_t task = first; task < last; ++task) sum(task / parts, task % parts);
        });
        std::atomic<bool> finite{true};
        parallel_for(0, F_blocks_ * C_blocks_, 1, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t i = first; i < last; ++i) {
                const std::int64_t f = i / C_blocks_, c = i % C_blocks_;
                bool good = add_chunks(f, c, dw);
                if (c == 0 && db) good &= add_bias_chunks(f, db);
                if (!good) finite.store(false, std::memory_order_relaxed);
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

    void sum(std::int64_t chunk, std::int64_t part) const {
        const std::int64_t f = part / C_parts_, c = part % C_parts_;
        const Blocks F{F_blocks_ * f / F_parts_, F_blocks_ * (f + 1) / F_parts_, p_.F};
        const Blocks C{C_blocks_ * c / C_parts_, C_blocks_ * (c + 1) / C_parts_, filters_.C};
        const std::int64_t depth = bands_.depth_of(bands_.rows), pairs = bands_.copy_pairs() * tile_cols;
        Scratch scratch;
        std::uint32_t* left = scratch.take<std::uint32_t>(F.tiles() * depth * words_in_tile);
        std::uint32_t* right = scratch.take<std::uint32_t>(bands_.copies * C.tiles() * pairs);
        std::uint32_t* staged = scratch.take<std::uint32_t>(F.tiles() * depth * words_in_tile);
        bfloat16* padded_row = scratch.take<bfloat16>(row_width() * p_.C);
        // What a tile reads beyond the last row must be the same in every run.
        std::fill_n(right, bands_.copies * C.tiles() * pairs, 0u);
        for (std::int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const auto rows = bands_.band(unit, p_);
            const bool first = unit == split_.first_unit(chunk);
            pack_dy(F, rows, staged, left, depth);
            pack_x(C, rows, right, padded_row);
            multiply(chunk, F, C, left, right, depth, bands_.depth_of(rows.last - rows.first), first);
        }
    }

    // dy's rows as pairs, then transposed: left[tile of filters][depth][filter][pair].
    void pack_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged, std::uint32_t* left,
                 std::int64_t most_depth) const {
        const std::int64_t depth = bands_.depth_of(rows.last - rows.first),
                           apart = most_depth * words_in_tile;
        const std::int64_t used = (rows.last - rows.first) * bands_.pairs * tile_cols;
        for (std::int64_t b = F.first; b < F.last; ++b) {
            std::uint32_t* to = staged + F.tile(b) * apart;
            for (std::int64_t row = rows.first; row < rows.last; ++row) {
                std::uint32_t* row_to = to + (row - rows.first) * bands_.pairs * tile_cols;
                if (F.width(b) == 2) {
                    pack_dy_row<2>(row, b * block_channels, row_to, apart);
                } else {
                    pack_dy_row<1>(row, b * block_channels, row_to, apart);
                }
            }
            for (int t = 0; t < F.width(b); ++t, to += apart) {
                std::fill(to + used, to + depth * words_in_tile, 0u);
                for (std::int64_t k = 0; k < depth; ++k) {
                    transpose_tile(to + k * words_in_tile,
                                   left + (F.tile(b) + t) * apart + k * words_in_tile);
                }
            }
        }
    }

    template <int tiles>
    void pack_dy_row(std::int64_t row, std::int64_t channel, std::uint32_t* to, std::int64_t apart) const {
        if (winner_) return pack_pooled_row<tiles>(row, channel, to, apart);
        const std::int64_t start = row * p_.OW * p_.F + channel, size = p_.N * p_.OH * p_.OW * p_.F;
        if (relu_y_) {
            const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
                const std::int64_t place = start + i * p_.F;
                return MaskedPixel{dy_ + place, relu_y_ + place, size - place};
            };
            pack_pairs<tiles>(p_.OW, at, to, apart);
        } else {
            const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
                const std::int64_t place = start + i * p_.F;
                return PlainPixel{dy_ + place, size - place};
            };
            pack_pairs<tiles>(p_.OW, at, to, apart);
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

    // x as pairs: right[copy][tile of channels][row][pair][channel].
    void pack_x(const Blocks& C, MapBands::Rows rows, std::uint32_t* right, bfloat16* padded_row) const {
        const std::int64_t used = bands_.copy_rows - (bands_.rows - (rows.last - rows.first));
        for (std::int64_t row = 0; row < used; ++row) {
            for (std::int64_t u = 0; u < (bands_.shares_rows ? 1 : p_.KH); ++u) {
                const bfloat16* source = source_row(rows.first, row, u);
                std::uint32_t* to = right + u * filters_.KW * C.tiles() * bands_.copy_pairs() * tile_cols +
                                    row * bands_.pairs * tile_cols;
                if (filters_.joined) {
                    pack_joined_row(C, source, padded_row, to);
                } else {
                    pack_row(C, source, to);
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

    void pack_row(const Blocks& C, const bfloat16* source, std::uint32_t* to) const {
        const bfloat16* end = x_ + p_.N * p_.H * p_.W * p_.C;
        const std::int64_t apart = bands_.copy_pairs() * tile_cols;
        for (std::int64_t v = 0; v < filters_.KW; ++v) {
            for (std::int64_t b = C.first; b < C.last; ++b) {
                const auto pack = C.width(b) == 2 ? pack_source_row<2> : pack_source_row<1>;
                pack(source ? source + b * block_channels : nullptr, end, p_.OW, p_.W, p_.C, p_.stride_w,
                     v * p_.dil_w - p_.pad_w, to + (v * C.tiles() + C.tile(b)) * apart, apart);
            }
        }
    }

    void pack_joined_row(const Blocks& C, const bfloat16* source, bfloat16* padded_row,
                         std::uint32_t* to) const {
        const std::int64_t width = row_width(), apart = bands_.copy_pairs() * tile_cols;
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

    void multiply(std::int64_t chunk, const Blocks& F, const Blocks& C, const std::uint32_t* left,
                  const std::uint32_t* right, std::int64_t most_depth, std::int64_t depth,
                  bool first) const {
        const std::int64_t left_apart = most_depth * words_in_tile,
                           right_apart = bands_.copy_pairs() * tile_cols;
        for (std::int64_t f = F.first; f < F.last; ++f) {
            const std::uint32_t* a = left + F.tile(f) * left_apart;
            for (std::int64_t c = C.first; c < C.last; ++c) {
                for (std::int64_t v = 0; v < filters_.KW; ++v) {
                    for (std::int64_t u = 0; u < p_.KH; ++u) {
                        const std::int64_t copy = (bands_.shares_rows ? 0 : u * filters_.KW) + v;
                        const std::int64_t row = bands_.shares_rows ? u * p_.dil_h : 0;
                        const std::uint32_t* b = right + (copy * C.tiles() + C.tile(c)) * right_apart +
                                                 row * bands_.pairs * tile_cols;
                        multiply_any(F.width(f), C.width(c), a, left_apart, b, right_apart, words_in_tile,
                                     depth, sums(chunk, f, c, u * filters_.KW + v), first);
                    }
                }
            }
            if (needs_db_ && C.first == 0) {
                alignas(64) bfloat16 ones[tile_depth];
                std::fill_n(ones, tile_depth, one);
                multiply_any(F.width(f), 1, a, left_apart, reinterpret_cast<std::uint32_t*>(ones), 0, 0,
                             depth, bias_sums(chunk, f), first);
            }
        }
    }

    static void multiply_any(int m, int n, const std::uint32_t* a, std::int64_t a_apart,
                             const std::uint32_t* b, std::int64_t b_apart, std::int64_t b_step,
                             std::int64_t depth, float* sums, bool first) {
        const auto multiply = m == 2 ? (n == 2 ? multiply_block<Unit, 2, 2> : multiply_block<Unit, 2, 1>)
                                     : (n == 2 ? multiply_block<Unit, 1, 2> : multiply_block<Unit, 1, 1>);
        multiply(a, a_apart, b, b_apart, b_step, depth, sums, first);
    }

    // Adds the sums of the chunks in order, and brings them into the rows of dw.  It is false if one is not
    // finite.
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

ConvParams dense_as_conv(std::int64_t N, std::int64_t in, std::int64_t out) {
    return {1, in, 1, N, out, 1, 1, 1, N, 1, 1, 0, 0, 1, 1, 1};
}

#define INSTANTIATE(Unit)                                                                  \
    template bool tile_weight<Unit>(const bfloat16*, const bfloat16*, const std::uint8_t*, \
                                    const bfloat16*, float*, float*, const ConvParams&);
MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE)

}  // namespace minicnn
