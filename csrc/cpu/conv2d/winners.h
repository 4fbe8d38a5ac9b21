// What a backward pass makes of the winners that it is given, before anything is read or written where they
// say.
#pragma once

#include "../../conv2d_ops.h"
#include "../core/scratch.h"

namespace minicnn {

// The winners, if each of them is relu_off or the number of a cell that lies in the convolution's map.
// Winners that were saved for another pool need not be: then a copy in `scratch`, where those that are not
// are relu_off.
const std::uint8_t* usable_winners(const std::uint8_t* winner, const ConvParams& p, const PoolParams& pool,
                                   Scratch& scratch);

}  // namespace minicnn
