// The forward pass of a convolution in two parts: its filters are made ready for a way, and the pass runs
// with them.  conv2d_forward does one after the other; a session (csrc/cpu/session) keeps the filters.
#pragma once

#include "../core/gemm.h"
#include "../core/packing.h"
#include "route.h"
#include "winograd_filters.h"

namespace minicnn {

// The filters of a convolution in the forms that the ways read.  A form is there after make_ready.
template <typename T>
struct ForwardFilters {
    const T *weight, *bias;         // as in conv2d_forward
    const T* taps_first = nullptr;  // depthwise.h
    PackedFilters<T> packed{};      // direct.h
    PackedOperand<T> columns{};     // columns.h
    WinogradFilters winograd{};     // winograd_passes.h, of float alone
};

// Makes the form that a way reads, if it is not there yet, in `memory`.
template <typename T>
void make_ready(ForwardFilters<T>& filters, ForwardWay way, const ConvParams& p, Memory& memory);
template <typename T>
void make_ready(ForwardFilters<T>& filters, PooledForwardWay way, const ConvParams& p, Memory& memory);

// The pass by a way for which the filters are ready; other arguments as in conv2d_forward and
// conv2d_pool_forward.  False if a result of Winograd's way is not finite: then what was written counts for
// nothing, and the pass has to be run again without it.
template <typename T>
bool forward_by(ForwardWay way, const ForwardFilters<T>& filters, const T* x, T* y, const ConvParams& p,
                bool relu);
template <typename T>
bool pooled_forward_by(PooledForwardWay way, const ForwardFilters<T>& filters, const T* x, T* y,
                       std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu);

}  // namespace minicnn
