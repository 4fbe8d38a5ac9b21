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
#include "band_weight.h"
#include "tile_units.h"

namespace minicnn {
namespace {

constexpr std::int64_t block_words = 4 * words_in_tile;
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

template <typename Unit>
class TileWeight {
  public:
    TileWeight(const WeightInput& in, bool needs_db, const ConvParams& conv, Scratch& scratch)
        : needs_db_(needs_db),
          filters_(conv, in.winner != nullptr),
          p_(filters_.p),
          F_blocks_(blocks_of(p_.F)),
          C_blocks_(blocks_of(filters_.C)),
          taps_(p_.KH * filters_.KW),
          bands_(filters_, tiles_of(p_.F)),
          packer_(in, filters_, bands_),
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

    Part part_at(std::int64_t part) const {
        const std::int64_t f = part / C_parts_, c = part % C_parts_;
        return {{F_blocks_ * f / F_parts_, F_blocks_ * (f + 1) / F_parts_, p_.F},
                {C_blocks_ * c / C_parts_, C_blocks_ * (c + 1) / C_parts_, filters_.C}};
    }

    void sum(std::int64_t chunk, const Part& part) const {
        const std::int64_t right_size = packer_.right_size(part.C);
        Scratch scratch;
        std::uint32_t* left = scratch.take<std::uint32_t>(packer_.left_size(part.F));
        std::uint32_t* right = scratch.take<std::uint32_t>(right_size);
        std::uint32_t* staged = scratch.take<std::uint32_t>(packer_.staged_size());
        bfloat16* padded_row = scratch.take<bfloat16>(packer_.padded_row_size());
        // What a tile reads beyond the last row must be the same in every run.
        std::fill_n(right, right_size, 0u);
        for (std::int64_t band = split_.first_unit(chunk); band < split_.first_unit(chunk + 1); ++band) {
            const std::int64_t begin = band * bands_.segments;
            const std::int64_t segments = std::min(bands_.segments, bands_.count - begin);
            for (std::int64_t i = 0; i < segments; ++i) {
                const MapBands::Rows rows = bands_.segment(begin + i);
                packer_.pack_dy(part.F, rows, staged, left + i * packer_.left_segment());
                packer_.pack_x(part.C, rows, right + i * packer_.right_segment(), padded_row);
            }
            // Only a band of one segment can be shorter than the others.
            const std::int64_t depth = bands_.depth_of(bands_.segment(begin).count());
            multiply_band(chunk, part, left, right, {segments, depth}, band == split_.first_unit(chunk));
        }
    }

    void multiply_band(std::int64_t chunk, const Part& part, const std::uint32_t* left,
                       const std::uint32_t* right, const Depth& over, bool first) const {
        alignas(tile_bytes) bfloat16 ones[tile_depth];
        std::fill_n(ones, tile_depth, one);
        const Side all_ones{reinterpret_cast<std::uint32_t*>(ones), 0, 0, true};
        const auto& [F, C] = part;
        const std::int64_t left_apart = packer_.left_apart(), right_apart = packer_.right_apart();
        for (std::int64_t f = F.first; f < F.last; ++f) {
            const Side a{left + F.tile(f) * left_apart, left_apart, packer_.left_segment()};
            for (std::int64_t c = C.first; c < C.last; ++c) {
                for (std::int64_t tap = 0; tap < taps_; ++tap) {
                    const Side b{right + packer_.tap_start(C, tap) + C.tile(c) * right_apart, right_apart,
                                 packer_.right_segment()};
                    multiply<Unit>(F.width(f), C.width(c), a, b, over, sums(chunk, f, c, tap), first);
                }
            }
            if (needs_db_ && C.first == 0) {
                multiply<Unit>(F.width(f), 1, a, all_ones, over, bias_sums(chunk, f), first);
            }
        }
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

    bool needs_db_;
    Filters filters_;
    const ConvParams& p_;
    std::int64_t F_blocks_, C_blocks_, taps_;
    MapBands bands_;
    BandPacker packer_;
    BatchSplit split_;
    std::int64_t F_parts_, C_parts_;
    float* sums_;
};

}  // namespace

template <typename Unit>
bool tile_weight(const bfloat16* dy, const bfloat16* relu_y, const std::uint8_t* winner, const bfloat16* x,
                 float* dw, float* db, const ConvParams& p) {
    if (p.N * p.OH * p.OW == 0) {
        std::fill_n(dw, p.F * p.KH * p.KW * p.C, 0.0f);
        if (db) std::fill_n(db, p.F, 0.0f);
        return true;
    }
    Scratch scratch;
    return TileWeight<Unit>({dy, relu_y, winner, x}, db != nullptr, p, scratch).run(dw, db);
}

#define INSTANTIATE(Unit)                                                                  \
    template bool tile_weight<Unit>(const bfloat16*, const bfloat16*, const std::uint8_t*, \
                                    const bfloat16*, float*, float*, const ConvParams&);
MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE)

}  // namespace minicnn
