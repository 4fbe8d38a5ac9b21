// The router of bfloat16: whether a pass of a convolution or of a dense layer goes through a tile unit, and
// which one.
//
// The unit is chosen once a process: the tile unit where the processor and the operating system offer one,
// else AVX512-BF16, else none.  The environment variable MINICNN_TILE_UNIT names another: `auto` (this
// choice), `none`, `vector`, or `emulated`, which is slow and serves tests.  Without a unit, and for
// groups, passes are widened (widened.h).
#pragma once

#include "../../bfloat16.h"
#include "../../conv2d_ops.h"
#include "tile_units.h"

namespace minicnn {

enum class TileUnitKind { none, native, vector, emulated };

TileUnitKind tile_unit_kind();

// Calls f with an object of the unit's class; false where there is none.
template <typename F>
bool with_tile_unit(const F& f) {
    switch (tile_unit_kind()) {
#if MINICNN_HAS_TILE_UNIT
        case TileUnitKind::native:
            return f(TileUnit());
#endif
#if MINICNN_HAS_VECTOR_UNIT
        case TileUnitKind::vector:
            return f(VectorUnit());
#endif
        case TileUnitKind::emulated:
            return f(EmulatedTileUnit());
        default:
            return false;
    }
}

// Whether the tile unit computes a pass of this convolution: the forward pass, the gradient to the input or
// that to the filters.  `pool` is the max-pool that is fused with it, or nullptr.
bool forward_suits_tiles(const ConvParams& p, const PoolParams* pool);
bool data_suits_tiles(const ConvParams& p, const PoolParams* pool);
bool weight_suits_tiles(const ConvParams& p, const PoolParams* pool);

}  // namespace minicnn
