// The router: which way each pass of a convolution goes on the CPU.  Every predicate and every threshold of
// this choice stands in route.cpp; conv2d.cpp asks once a pass and does as it is told.
//
// A way depends on the shape and on the size of a value alone, never on values or on the number of threads,
// and on the environment variable MINICNN_WINOGRAD, which is 0 to exclude Winograd's way.
// What happens when Winograd's way gives a result that is not finite belongs to running, not to choosing:
// conv2d.cpp then asks again with Winograd::excluded.
#pragma once

#include <cstdint>

#include "../../conv2d_ops.h"

namespace minicnn {

// The forward pass.
enum class ForwardWay {
    depthwise_tiles,  // depthwise_tiles.h: depthwise filters 3 or 5 wide, each pixel loaded once for its
                      // row of taps
    depthwise,        // depthwise.h: any other depthwise filter, tap by tap
    winograd,         // winograd_passes.h
    columns,          // columns.h: im2col and one matrix product, for small maps
    direct            // direct.h: sums over the taps in register tiles
};

// The gradient to the input.
enum class DataWay { depthwise, winograd, columns, direct };

// The gradient to the filters.
enum class WeightWay { depthwise, winograd, columns, direct };

// The forward pass fused with a max-pool.
enum class PooledForwardWay {
    winograd,  // the 2x2 windows are pooled inside Winograd's 4x4 tiles
    tiles,     // the 2x2 windows are pooled inside the register tiles
    bands      // any window: a band of the map is stored in scratch memory and pooled from there
};

// The gradient to the input of a convolution fused with a max-pool.
enum class PooledDataWay {
    winograd,
    sparse  // pool_sparse.h: sums over the windows' winners alone
};

// The gradient to the filters of a convolution fused with a max-pool.
enum class PooledWeightWay {
    winograd,
    unpooled,  // direct_weight.h: the gradient is brought to full size while it is read
    sparse
};

// Whether Winograd's way may be chosen.
enum class Winograd { allowed, excluded };

// Whether the filters are made ready for a forward pass in each call, or once for all calls.
enum class Preparation { each_call, once };

// bytes_per_value is sizeof(T): 4 for float, 8 for double.
ForwardWay forward_way(const ConvParams& p, std::int64_t bytes_per_value,
                       Winograd winograd = Winograd::allowed, Preparation filters = Preparation::each_call);
DataWay data_way(const ConvParams& p, std::int64_t bytes_per_value, Winograd winograd = Winograd::allowed);
WeightWay weight_way(const ConvParams& p, std::int64_t bytes_per_value,
                     Winograd winograd = Winograd::allowed);

PooledForwardWay pooled_forward_way(const ConvParams& p, const PoolParams& pool,
                                    std::int64_t bytes_per_value, Winograd winograd = Winograd::allowed,
                                    Preparation filters = Preparation::each_call);
PooledDataWay pooled_data_way(const ConvParams& p, const PoolParams& pool, std::int64_t bytes_per_value,
                              Winograd winograd = Winograd::allowed);
PooledWeightWay pooled_weight_way(const ConvParams& p, const PoolParams& pool, std::int64_t bytes_per_value,
                                  Winograd winograd = Winograd::allowed);

// Whether it is a 1x1 convolution that reads every pixel once.
bool is_pointwise(const ConvParams& p);

// Whether every window of the pool is a 2x2 square of its own that lies inside the convolution's map.
bool is_two_by_two(const ConvParams& p, const PoolParams& pool);

// How many images' columns fit the matrix of columns.h, which bounds the memory that it takes.
std::int64_t images_in_columns(const ConvParams& p, std::int64_t bytes_per_value);

}  // namespace minicnn
