// The passes of a convolution as correlations on the tile unit.  All of them take convolutions of one
// group, and return false if a sum is not finite: then the result has to be computed another way.
//
// A dense layer is a 1x1 convolution of an image with a pixel for each row.
#pragma once

#include "../../bfloat16.h"
#include "../../conv2d_ops.h"
#include "../conv2d/route.h"
#include "tile_plan.h"

namespace minicnn {

// The forward pass, alone or with a 2x2 max-pool: how it is laid out in tiles, which depends on the shape
// alone.  Every window of the pool is a square of its own that lies inside the map.
class TileForward {
  public:
    TileForward(const ConvParams& given, const PoolParams* pool);

    // The depth's runs, on which packed filters depend.  Another number of images may change them.
    const TileRuns& runs() const { return plan_.runs; }
    PackedTiles pack(const float* weight, const float* bias, Memory& memory) const;

    // What comes out; residual and winner are optional, and laid out as y.  The residual is added to what
    // is rounded, before ReLU, where no pool is fused; winners are noted where one is.
    struct Result {
        bfloat16* y;
        bool relu;
        const bfloat16* residual = nullptr;
        std::uint8_t* winner = nullptr;
    };
    template <typename Unit>
    bool run(const bfloat16* x, const PackedTiles& filters, const Result& result) const;

  private:
    ConvParams given_, shape_;  // shape_ is what the tiles compute in place of the given one
    TileCorrelation correlation_;
    TilePlan plan_;
};

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
