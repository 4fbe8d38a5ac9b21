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

}  // namespace

TileUnitKind tile_unit_kind() {
    static const TileUnitKind kind = chosen_unit();
    return kind;
}

bool suits_tiles(const ConvParams& p) { return p.groups == 1; }

bool suits_pooled_tiles(const ConvParams& p, const PoolParams& pool) {
    return suits_tiles(p) && is_two_by_two(p, pool);
}

}  // namespace minicnn
