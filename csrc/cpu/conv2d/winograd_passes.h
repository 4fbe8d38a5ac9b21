// Convolution's passes by Winograd's way, for the shapes that route.h names.
//
// Each returns false if a result is not finite.  Then what it wrote counts for nothing, and the caller
// computes the pass another way.  Arguments as in conv2d_ops.h; dy is the gradient of the convolution's
// map, or if `winner` is given that of its 2x2 max-pool.
#pragma once

#include "../../conv2d_ops.h"
#include "../core/memory.h"
#include "winograd_filters.h"

namespace minicnn {

// The filters as the forward passes read them.
WinogradFilters winograd_forward_filters(const float* weight, const float* bias, const ConvParams& p,
                                         Memory& memory);
bool winograd_forward(const float* x, const WinogradFilters& filters, float* y, const ConvParams& p,
                      bool relu);
// The pool's windows are 2x2 squares of their own inside the map.
bool winograd_pooled_forward(const float* x, const WinogradFilters& filters, float* y, std::uint8_t* winner,
                             const ConvParams& p, const PoolParams& pool, bool relu);
bool winograd_data(const float* dy, const float* relu_y, const std::uint8_t* winner, const float* weight,
                   float* dx, const ConvParams& p);
bool winograd_weight(const float* dy, const float* relu_y, const std::uint8_t* winner, const float* x,
                     float* dw, const ConvParams& p);

}  // namespace minicnn
