// The gradient to filters on the tile unit: dw[f][tap][c] = the sum over pixels of dy[pixel][f] times the
// value of channel c that tap reads there.  Dense layers are 1x1 convolutions,
// whose pixels are the rows of the batch.
#pragma once

#include "../../bfloat16.h"
#include "../../conv2d_ops.h"

namespace minicnn {

// dw (F,KH,KW,C) and db (F, optional).  dy is the gradient to the map (N,OH,OW,F).  It counts only where
// relu_y, if given, is positive or NaN.  If `winner` is given, dy and winner belong to the pooled map
// (N,OH/2,OW/2,F), and each value goes to the winner of its 2x2 window.
//
// It is false if a result is not finite: then dw and db are to be computed another way.  (A tile multiplies
// values that do not belong together with zeros, which matters for infinities and NaN alone.)
template <typename Unit>
bool tile_weight(const bfloat16* dy, const bfloat16* relu_y, const std::uint8_t* winner, const bfloat16* x,
                 float* dw, float* db, const ConvParams& p);

}  // namespace minicnn
