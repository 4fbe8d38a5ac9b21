// The classes that have a tile unit's functions, for the instances of kernels that are templates over them.
#pragma once

#include "tile_emulation.h"
#include "tile_unit.h"
#include "vector_unit.h"

#if MINICNN_HAS_TILE_UNIT
#define MINICNN_WITH_TILE_UNIT(INSTANTIATE) INSTANTIATE(TileUnit)
#else
#define MINICNN_WITH_TILE_UNIT(INSTANTIATE)
#endif

#if MINICNN_HAS_VECTOR_UNIT
#define MINICNN_WITH_VECTOR_UNIT(INSTANTIATE) INSTANTIATE(VectorUnit)
#else
#define MINICNN_WITH_VECTOR_UNIT(INSTANTIATE)
#endif

#define MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE) \
    MINICNN_WITH_TILE_UNIT(INSTANTIATE)         \
    MINICNN_WITH_VECTOR_UNIT(INSTANTIATE)       \
    INSTANTIATE(EmulatedTileUnit)
