// Prints the ways that the router chooses, for tests/test_routes.py.
//
// Each line of the input is a shape: N C H W F KH KW stride padding dilation groups, the bytes of a value,
// and a pool's kernel, stride and padding.  Each line of the output names the ways of the forward pass, of
// the gradients to the input and to the filters, and of the same three with the pool fused; then whether
// the pool is fused in training and in evaluation; then the ways of both forward passes where filters are
// made ready once.

#include <iostream>

#include "../../csrc/cpu/conv2d/route.h"

namespace minicnn {
namespace {

using std::int64_t;

const char* name(ForwardWay way) {
    switch (way) {
        case ForwardWay::depthwise_tiles:
            return "depthwise_tiles";
        case ForwardWay::depthwise:
            return "depthwise";
        case ForwardWay::winograd:
            return "winograd";
        case ForwardWay::columns:
            return "columns";
        default:
            return "direct";
    }
}

const char* name(DataWay way) {
    switch (way) {
        case DataWay::depthwise:
            return "depthwise";
        case DataWay::winograd:
            return "winograd";
        case DataWay::columns:
            return "columns";
        default:
            return "direct";
    }
}

const char* name(WeightWay way) {
    switch (way) {
        case WeightWay::depthwise:
            return "depthwise";
        case WeightWay::winograd:
            return "winograd";
        case WeightWay::columns:
            return "columns";
        default:
            return "direct";
    }
}

const char* name(PooledForwardWay way) {
    switch (way) {
        case PooledForwardWay::winograd:
            return "winograd";
        case PooledForwardWay::tiles:
            return "tiles";
        default:
            return "bands";
    }
}

const char* name(PooledDataWay way) { return way == PooledDataWay::winograd ? "winograd" : "sparse"; }

const char* name(PooledWeightWay way) {
    switch (way) {
        case PooledWeightWay::winograd:
            return "winograd";
        case PooledWeightWay::unpooled:
            return "unpooled";
        default:
            return "sparse";
    }
}

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
    return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

void print_ways(const ConvParams& p, const PoolParams& pool, int64_t bytes) {
    std::cout << name(forward_way(p, bytes)) << ' ' << name(data_way(p, bytes)) << ' '
              << name(weight_way(p, bytes)) << ' ' << name(pooled_forward_way(p, pool, bytes)) << ' '
              << name(pooled_data_way(p, pool, bytes)) << ' ' << name(pooled_weight_way(p, pool, bytes))
              << ' ' << (conv2d_pool_fuses(p, pool, true) ? "fused" : "apart") << ' '
              << (conv2d_pool_fuses(p, pool, false) ? "fused" : "apart") << ' '
              << name(forward_way(p, bytes, Winograd::allowed, Preparation::once)) << ' '
              << name(pooled_forward_way(p, pool, bytes, Winograd::allowed, Preparation::once)) << '\n';
}

}  // namespace
}  // namespace minicnn

int main() {
    using namespace minicnn;
    int64_t N, C, H, W, F, KH, KW, stride, pad, dilation, groups, bytes, kernel, pool_stride, pool_pad;
    while (std::cin >> N >> C >> H >> W >> F >> KH >> KW >> stride >> pad >> dilation >> groups >> bytes >>
           kernel >> pool_stride >> pool_pad) {
        const int64_t OH = out_size(H, KH, stride, pad, dilation),
                      OW = out_size(W, KW, stride, pad, dilation);
        print_ways({N, C, H, W, F, KH, KW, OH, OW, stride, stride, pad, pad, dilation, dilation, groups},
                   {kernel, kernel, out_size(OH, kernel, pool_stride, pool_pad, 1),
                    out_size(OW, kernel, pool_stride, pool_pad, 1), pool_stride, pool_stride, pool_pad,
                    pool_pad, 1, 1},
                   bytes);
    }
}
