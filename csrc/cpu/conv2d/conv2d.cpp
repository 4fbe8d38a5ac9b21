// Convolution, alone and fused with ReLU and max-pool: asks the router for the way of each pass and goes
// it.
//
// A result of Winograd's way that is not finite is thrown away and computed again the way that the shape
// has without Winograd: its transforms spread an infinity over a whole tile, while a sum over the taps has
// it where it belongs.
#include <type_traits>

#include "../core/channel_sums.h"
#include "columns.h"
#include "depthwise.h"
#include "direct.h"
#include "direct_weight.h"
#include "forward.h"
#include "pool_sparse.h"
#include "route.h"
#include "winners.h"
#include "winograd_passes.h"

namespace minicnn {
namespace {

// Winograd's way computes in float alone, and is chosen for nothing else.
template <typename T>
constexpr bool has_winograd = std::is_same_v<T, float>;

template <typename T>
void data_gradient(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
    DataWay way = data_way(p, sizeof(T));
    if constexpr (has_winograd<T>) {
        if (way == DataWay::winograd) {
            if (winograd_data(dy, relu_y, nullptr, weight, dx, p)) return;
            way = data_way(p, sizeof(T), Winograd::excluded);
        }
    }
    switch (way) {
        case DataWay::depthwise:
            return depthwise_backward_data(dy, relu_y, weight, dx, p);
        case DataWay::columns:
            return columns_backward_data(dy, relu_y, weight, dx, p);
        default:
            return direct_data(dy, relu_y, weight, dx, p);
    }
}

template <typename T>
void weight_gradient(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    WeightWay way = weight_way(p, sizeof(T));
    if constexpr (has_winograd<T>) {
        if (way == WeightWay::winograd) {
            if (winograd_weight(dy, relu_y, nullptr, x, dw, p)) return;
            way = weight_way(p, sizeof(T), Winograd::excluded);
        }
    }
    switch (way) {
        case WeightWay::depthwise:
            return depthwise_backward_weight(dy, relu_y, x, dw, p);
        case WeightWay::columns:
            return columns_backward_weight(dy, relu_y, x, dw, p);
        default:
            return direct_weight(dy, relu_y, x, dw, p);
    }
}

template <typename T>
void pooled_data(const T* dy, const uint8_t* winner, const T* weight, T* dx, const ConvParams& p,
                 const PoolParams& pool) {
    if constexpr (has_winograd<T>) {
        if (pooled_data_way(p, pool, sizeof(T)) == PooledDataWay::winograd &&
            winograd_data(dy, nullptr, winner, weight, dx, p)) {
            return;
        }
    }
    sparse_data(dy, winner, weight, dx, p, pool);
}

// Computes dw by a way that leaves db to others, if that is the way of this shape; else returns false.
template <typename T>
bool pooled_weight_without_bias(const T* dy, const uint8_t* winner, const T* x, T* dw, const ConvParams& p,
                                const PoolParams& pool) {
    PooledWeightWay way = pooled_weight_way(p, pool, sizeof(T));
    if constexpr (has_winograd<T>) {
        if (way == PooledWeightWay::winograd) {
            if (winograd_weight(dy, nullptr, winner, x, dw, p)) return true;
            way = pooled_weight_way(p, pool, sizeof(T), Winograd::excluded);
        }
    }
    if (way == PooledWeightWay::sparse) return false;
    unpooled_direct_weight(dy, winner, x, dw, p);
    return true;
}

// One forward pass by a way, whose filters are made ready for it alone.
template <typename T>
bool forward_once(ForwardWay way, const T* x, const T* weight, const T* bias, T* y, const ConvParams& p,
                  bool relu) {
    Scratch scratch;
    ForwardFilters<T> filters{weight, bias};
    make_ready(filters, way, p, scratch);
    return forward_by(way, filters, x, y, p, relu);
}

template <typename T>
bool pooled_forward_once(PooledForwardWay way, const T* x, const T* weight, const T* bias, T* y,
                         uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    Scratch scratch;
    ForwardFilters<T> filters{weight, bias};
    make_ready(filters, way, p, scratch);
    return pooled_forward_by(way, filters, x, y, winner, p, pool, relu);
}

}  // namespace

template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu) {
    const auto run = [&](Winograd winograd) {
        return forward_once(forward_way(p, sizeof(T), winograd), x, weight, bias, y, p, relu);
    };
    if (!run(Winograd::allowed)) run(Winograd::excluded);
}

template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p) {
    // Step 4: the gradient to x: each output gives its pixels dy times the weights.
    if (dx) data_gradient(dy, relu_y, weight, dx, p);
    // Step 5: the gradient to the weights: each output adds dy times its window.
    if (dw) weight_gradient(dy, relu_y, x, dw, p);
    // Step 6: the gradient to the bias: the sum of dy.
    if (db) sum_channels(dy, relu_y, db, p.N * p.OH * p.OW, p.F);
}

template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu) {
    const auto run = [&](Winograd winograd) {
        const PooledForwardWay way = pooled_forward_way(p, pool, sizeof(T), winograd);
        return pooled_forward_once(way, x, weight, bias, y, winner, p, pool, relu);
    };
    if (!run(Winograd::allowed)) run(Winograd::excluded);
}

template <typename T>
void conv2d_pool_backward(const T* dy, const uint8_t* saved_winner, const T* x, const T* weight, T* dx,
                          T* dw, T* db, const ConvParams& p, const PoolParams& pool) {
    Scratch scratch;
    const uint8_t* winner = usable_winners(saved_winner, p, pool, scratch);
    if (dx) pooled_data(dy, winner, weight, dx, p, pool);
    if (!dw || pooled_weight_without_bias(dy, winner, x, dw, p, pool)) {
        if (db) sparse_weight<T>(dy, winner, x, nullptr, db, p, pool);
    } else {
        sparse_weight(dy, winner, x, dw, db, p, pool);
    }
}

#define INSTANTIATE(T)                                                                                    \
    template void conv2d_forward(const T*, const T*, const T*, T*, const ConvParams&, bool);              \
    template void conv2d_backward(const T*, const T*, const T*, const T*, T*, T*, T*, const ConvParams&); \
    template void conv2d_pool_forward(const T*, const T*, const T*, T*, uint8_t*, const ConvParams&,      \
                                      const PoolParams&, bool);                                           \
    template void conv2d_pool_backward(const T*, const uint8_t*, const T*, const T*, T*, T*, T*,          \
                                       const ConvParams&, const PoolParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
