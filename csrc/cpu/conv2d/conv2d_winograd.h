// Convolution's passes by Winograd's way, for those who then go the direct way where it does not apply.
// Each returns false if the shape does not suit it or a result is not finite; arguments as in conv_ops.h,
// but that dy may be of a 2x2 max-pool whose `winner` is given.  Doubles always go the direct way.
#pragma once

#include "winograd.h"

namespace minicnn {

// The time of the alternative, as a part of a direct convolution's.
constexpr double direct_share = 1, sparse_weight_share = 0.6, sparse_data_share = 0.7;

bool forward_winograd(const float* x, const float* weight, const float* bias, const WinogradOutput& out,
                      const ConvParams& p);
bool data_winograd(const float* dy, const float* relu_y, const std::uint8_t* winner, const float* weight,
                   float* dx, const ConvParams& p, double share);
bool weight_winograd(const float* dy, const float* relu_y, const std::uint8_t* winner, const float* x,
                     float* dw, const ConvParams& p, double share);

inline bool data_winograd(const double*, const double*, const std::uint8_t*, const double*, double*,
                          const ConvParams&, double) {
    return false;
}
inline bool weight_winograd(const double*, const double*, const std::uint8_t*, const double*, double*,
                            const ConvParams&, double) {
    return false;
}

}  // namespace minicnn
