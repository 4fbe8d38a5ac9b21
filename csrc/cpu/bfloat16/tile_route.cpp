// Chooses the tile unit, and the passes that go through it.
#include "tile_route.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../conv2d/route.h"

namespace minicnn {
namespace {

constexpr bool has_vector_unit = MINICNN_HAS_VECTOR_UNIT;

bool native_unit_is_there() {
#if MINICNN_HAS_TILE_UNIT
    return TileUnit::enable();
#else
    return false;
#endif
}

TileUnitKind chosen_unit() {
    const char* given = std::getenv("MINICNN_TILE_UNIT");
    const std::string value = given ? given : "auto";
    if (value == "none") return TileUnitKind::none;
    if (value == "emulated") return TileUnitKind::emulated;
    if (value == "vector" && has_vector_unit) return TileUnitKind::vector;
    if (value != "auto") {
        const std::string got = value == "vector" ? "vector on a processor without AVX512-BF16" : value;
        throw std::invalid_argument(
            "[conv2d] MINICNN_TILE_UNIT: expected auto, none, vector or emulated, got " + got);
    }
    if (native_unit_is_there()) return TileUnitKind::native;
    return has_vector_unit ? TileUnitKind::vector : TileUnitKind::none;
}

bool is_possible(const ConvParams& p, const PoolParams* pool) {
    return p.groups == 1 && (!pool || is_two_by_two(p, *pool));
}

// The windows of one channel are runs so short, and the filters so few, that bringing them into tiles takes
// longer than the float32 sums.
bool fills_no_tile(const ConvParams& p) {
    const std::int64_t taps = p.KH * p.KW;
    return p.C == 1 && taps > 1 && taps <= tile_depth && p.F < tile_cols;
}

}  // namespace

TileUnitKind tile_unit_kind() {
    static const TileUnitKind kind = chosen_unit();
    return kind;
}

bool forward_suits_tiles(const ConvParams& p, const PoolParams* pool) {
    return is_possible(p, pool) && !fills_no_tile(p);
}

bool data_suits_tiles(const ConvParams& p, const PoolParams* pool) { return is_possible(p, pool); }

// Behind a pool the float32 sums go over the winners alone.
bool weight_suits_tiles(const ConvParams& p, const PoolParams* pool) {
    return is_possible(p, pool) && !(pool && fills_no_tile(p));
}

}  // namespace minicnn
