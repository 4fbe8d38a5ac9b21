// The passes of a convolution as correlations on the tile unit.  All of them take convolutions of one
// group, and return false if a sum is not finite: then the result has to be computed another way.
//
// A dense layer is a 1x1 convolution of an image with a pixel for each row.
#pragma once

#include "../../bfloat16.h"
#include "../../conv2d_ops.h"
#include "../conv2d/route.h"
#include "tile_packing.h"

namespace minicnn {

// The filters as the forward pass reads them, with the 2x2 max-pool that is fused, if one is.  They depend
// on the depth's runs, which another number of images may change.
TileRuns tile_runs(const ConvParams& p, const PoolParams* pool);
PackedTiles tile_filters(const float* weight, const float* bias, const ConvParams& p,
                         const PoolParams* pool, Memory& memory);

template <typename Unit>
bool tile_forward(const bfloat16* x, const PackedTiles& filters, bfloat16* y, const ConvParams& p,
                  bool relu);

// Every window of the pool is a 2x2 square of its own that lies inside the map.
template <typename Unit>
bool tile_pooled_forward(const bfloat16* x, const PackedTiles& filters, bfloat16* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu);

template <typename Unit>
bool tile_data(const bfloat16* dy, const bfloat16* relu_y, const float* weight, bfloat16* dx,
               const ConvParams& p);

template <typename Unit>
bool tile_pooled_data(const bfloat16* dy, const std::uint8_t* winner, const float* weight, bfloat16* dx,
                      const ConvParams& p, const PoolParams& pool);

// A dense layer (N, in) -> (N, out) as a convolution.
inline ConvParams as_convolution(std::int64_t N, std::int64_t in, std::int64_t out) {
    return {1, in, N, 1, out, 1, 1, N, 1, 1, 1, 0, 0, 1, 1, 1};
}

}  // namespace minicnn
