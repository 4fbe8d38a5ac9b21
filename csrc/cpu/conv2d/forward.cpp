// What form of the filters each way reads, and which function runs it.
#include "forward.h"

#include <type_traits>

#include "columns.h"
#include "depthwise.h"
#include "depthwise_tiles.h"
#include "direct.h"
#include "winograd_passes.h"

namespace minicnn {
namespace {

// Winograd's way and the depthwise tiles compute in float alone, and are chosen for nothing else.
template <typename T>
constexpr bool is_float = std::is_same_v<T, float>;

template <typename T>
void pack_direct(ForwardFilters<T>& filters, const ConvParams& p, Memory& memory) {
    if (!filters.packed.blocks) {
        filters.packed = direct_filters(filters.weight, filters.bias, p, memory);
    }
}

template <typename T>
void transform(ForwardFilters<T>& filters, const ConvParams& p, Memory& memory) {
    if constexpr (is_float<T>) {
        if (!filters.winograd.blocks) {
            filters.winograd = winograd_forward_filters(filters.weight, filters.bias, p, memory);
        }
    }
}

}  // namespace

template <typename T>
void make_ready(ForwardFilters<T>& filters, ForwardWay way, const ConvParams& p, Memory& memory) {
    switch (way) {
        case ForwardWay::depthwise_tiles:
        case ForwardWay::depthwise:
            if (!filters.taps_first) filters.taps_first = taps_first(filters.weight, p, memory);
            return;
        case ForwardWay::winograd:
            return transform(filters, p, memory);
        case ForwardWay::columns:
            if (!filters.columns.blocks) {
                filters.columns = columns_filters(filters.weight, filters.bias, p, memory);
            }
            return;
        case ForwardWay::direct:
            return pack_direct(filters, p, memory);
    }
}

template <typename T>
void make_ready(ForwardFilters<T>& filters, PooledForwardWay way, const ConvParams& p, Memory& memory) {
    way == PooledForwardWay::winograd ? transform(filters, p, memory) : pack_direct(filters, p, memory);
}

template <typename T>
bool forward_by(ForwardWay way, const ForwardFilters<T>& filters, const T* x, T* y, const ConvParams& p,
                bool relu) {
    if constexpr (is_float<T>) {
        if (way == ForwardWay::winograd) return winograd_forward(x, filters.winograd, y, p, relu);
        if (way == ForwardWay::depthwise_tiles) {
            depthwise_tiles_forward(x, filters.taps_first, filters.bias, y, p, relu);
            return true;
        }
    }
    if (way == ForwardWay::depthwise) {
        depthwise_forward(x, filters.taps_first, filters.bias, y, p, relu);
    } else if (way == ForwardWay::columns) {
        columns_forward(x, filters.columns, y, p, relu);
    } else {
        direct_forward(x, filters.packed, y, p, relu);
    }
    return true;
}

template <typename T>
bool pooled_forward_by(PooledForwardWay way, const ForwardFilters<T>& filters, const T* x, T* y,
                       uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    if constexpr (is_float<T>) {
        if (way == PooledForwardWay::winograd) {
            return winograd_pooled_forward(x, filters.winograd, y, winner, p, pool, relu);
        }
    }
    direct_pooled_forward(x, filters.packed, y, winner, p, pool, relu, way == PooledForwardWay::tiles);
    return true;
}

#define INSTANTIATE(T)                                                                                     \
    template void make_ready(ForwardFilters<T>&, ForwardWay, const ConvParams&, Memory&);                  \
    template void make_ready(ForwardFilters<T>&, PooledForwardWay, const ConvParams&, Memory&);            \
    template bool forward_by(ForwardWay, const ForwardFilters<T>&, const T*, T*, const ConvParams&, bool); \
    template bool pooled_forward_by(PooledForwardWay, const ForwardFilters<T>&, const T*, T*, uint8_t*,    \
                                    const ConvParams&, const PoolParams&, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
