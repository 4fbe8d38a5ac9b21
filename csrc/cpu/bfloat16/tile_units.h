// The classes that execute tile instructions, and the choice of a kernel's instance for one of them.
#pragma once

#include "tile_emulation.h"
#include "tile_unit.h"

namespace minicnn {

#if MINICNN_HAS_TILE_UNIT
#define MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE) \
    INSTANTIATE(TileUnit)                       \
    INSTANTIATE(EmulatedTileUnit)
#else
#define MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE) INSTANTIATE(EmulatedTileUnit)
#endif

}  // namespace minicnn
