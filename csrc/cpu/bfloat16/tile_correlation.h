// Correlations on the tile unit.
#pragma once

#include "tile_source.h"
#include "tile_store.h"

namespace minicnn {

// Computes a correlation with filters that were packed as the plan says.  The result is the same for any
// number of threads.  False if a sum is not finite: then what was stored may be wrong, because a tile
// multiplies values that are not its pixel's own with filters that are zero.
template <typename Unit>
bool correlate_tiles(const TileCorrelation& c, const TilePlan& plan, const PackedTiles& filters,
                     const CorrelationOutput& out);

}  // namespace minicnn
