// The predicates and thresholds that decide which way a convolution goes; route.h says what the ways are.
#include "route.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../core/simd.h"

namespace minicnn {
namespace {

// ---- depthwise -------------------------------------------------------------------------------------

// depthwise_tiles.cpp has kernels for float filters of these widths and strides, whose taps read
// neighbouring pixels, and needs a whole vector of channels.
bool suits_depthwise_tiles(const ConvParams& p, std::int64_t bytes_per_value) {
    return bytes_per_value == sizeof(float) && (p.KW == 3 || p.KW == 5) && p.stride_w <= 2 &&
           p.dil_w == 1 && p.C >= lanes<float>;
}

// ---- Winograd --------------------------------------------------------------------------------------

// With fewer channels than this the transforms take longer than the multiplications that they save.
constexpr std::int64_t winograd_least_channels = 16;

// The estimate counts vector operations: one multiply-add of a vector is 1.  A tile of 4x4 results takes
// 36 multiply-adds for each input channel and vector of output channels where the direct way takes 9 a
// pixel.
constexpr double tile_products = 36, pixel_products = 9;
// The transforms of one tile of one vector of input channels, and back of one vector of output channels.
constexpr double source_cost = 200, result_cost = 200;
// The transform of one vector of filters for one input channel.  It is the same for few images as for many,
// and takes longer once the transformed filters leave the caches, which grows with their bytes.
constexpr double filter_cost = 350, cost_per_byte = 4.6e-6 * lanes<float>;
// Where that was done before, they are only read.  Few of them are in a cache from the run before; many
// come from memory, and are four times as many bytes as the direct way reads.
constexpr double ready_filter_cost = 72, ready_cost_per_byte = 1.6e-5 * lanes<float>;
// Winograd's way must promise to be this much faster, as its results are rounded more.
constexpr double least_gain = 1.25;

// How long the way that competes with Winograd's takes, as a part of the direct way's time without a pool.
// The sums over the winners of a 2x2 max-pool have a quarter of the products, at a higher cost each.
constexpr double direct_share = 1, sparse_data_share = 0.7, sparse_weight_share = 0.6;

// A pass as a correlation of C with F channels that has rows x cols results on each of N images.
struct Estimate {
    std::int64_t N, C, F, rows, cols;
};

bool winograd_pays(const Estimate& c, double share, Preparation filters_are = Preparation::each_call) {
    constexpr int L = lanes<float>;
    const double in = static_cast<double>((c.C + L - 1) / L), out = static_cast<double>((c.F + L - 1) / L);
    const double tiles = static_cast<double>(c.N * ((c.rows + 3) / 4) * ((c.cols + 3) / 4));
    const double depth = static_cast<double>(c.C), pixels = static_cast<double>(c.N * c.rows * c.cols);
    const double plane_bytes = tile_products * sizeof(float) * depth * out * L;
    const double each_filter = filters_are == Preparation::once
                                   ? ready_filter_cost + ready_cost_per_byte * plane_bytes
                                   : filter_cost + cost_per_byte * plane_bytes;
    const double filters = each_filter * depth * out;
    const double each_tile = tile_products * depth * out + source_cost * in + result_cost * out;
    return least_gain * (tiles * each_tile + filters) < share * pixel_products * pixels * depth * out;
}

// Whether the user lets Winograd's way be chosen: MINICNN_WINOGRAD=0 excludes it.  Read once, so that no
// result depends on when it is set.
bool winograd_is_wanted() {
    static const bool wanted = [] {
        const char* given = std::getenv("MINICNN_WINOGRAD");
        const std::string value = given ? given : "1";
        if (value != "0" && value != "1") {
            throw std::invalid_argument("[conv2d] MINICNN_WINOGRAD: expected 0 or 1, got " + value);
        }
        return value == "1";
    }();
    return wanted;
}

// Winograd's F(4x4, 3x3) computes 3x3 filters of stride and dilation 1 in one group, in float.
bool suits_winograd(const ConvParams& p, std::int64_t bytes_per_value, Winograd winograd) {
    return winograd == Winograd::allowed && bytes_per_value == sizeof(float) && p.KH == 3 && p.KW == 3 &&
           p.stride_h == 1 && p.stride_w == 1 && p.dil_h == 1 && p.dil_w == 1 && p.groups == 1 &&
           p.C >= winograd_least_channels && p.F >= winograd_least_channels && winograd_is_wanted();
}

// The results of the forward pass; the gradient to the filters reads the same tiles of x.
Estimate over_outputs(const ConvParams& p) { return {p.N, p.C, p.F, p.OH, p.OW}; }
// The results of the gradient to the input, which sums over the filters.
Estimate over_inputs(const ConvParams& p) { return {p.N, p.F, p.C, p.H, p.W}; }

// ---- columns ---------------------------------------------------------------------------------------

// The matrix of columns may take this many bytes, so that it stays near the caches and memory stays
// bounded.
constexpr std::int64_t matrix_bytes = 8 << 20;
// A row of a map this short leaves a register tile so few pixels that it waits for its own sums.
constexpr std::int64_t short_row = 3;
// With fewer channels than these the matrix product is too small to repay the copy into columns: the sums
// of the forward pass go over C and its results over F, and in the gradients the other way round.
constexpr std::int64_t columns_least_inputs = 8, columns_least_outputs = 32, columns_least_gradients = 16;

bool has_columns(const ConvParams& p) { return p.groups == 1 && p.C >= columns_least_inputs; }

// Of so few pixels altogether, the matrix product reads the filters once, and bands of rows once a band.
constexpr std::int64_t few_pixels = 32;

bool columns_suit_forward(const ConvParams& p, std::int64_t bytes_per_value) {
    const bool small = p.OW <= short_row || p.N * p.OH * p.OW <= few_pixels;
    return has_columns(p) && small && p.F >= columns_least_outputs &&
           images_in_columns(p, bytes_per_value) > 0;
}

// Where the output is the smaller map, because there is little padding, a third of the products of a direct
// sum over the input's pixels or more are with padding.
bool has_smaller_output(const ConvParams& p) {
    return 2.0 * double(p.H) * double(p.W) > 3.0 * double(p.stride_h * p.OH) * double(p.stride_w * p.OW);
}

bool columns_suit_data(const ConvParams& p, std::int64_t bytes_per_value) {
    return has_columns(p) && p.F >= columns_least_gradients &&
           (p.W <= short_row || has_smaller_output(p)) && images_in_columns(p, bytes_per_value) > 0;
}

// The gradient to the filters is one sum over the batch, so that all of its columns must fit at once.
bool columns_suit_weight(const ConvParams& p, std::int64_t bytes_per_value) {
    return has_columns(p) && p.F >= columns_least_gradients && p.OW <= short_row &&
           p.N <= images_in_columns(p, bytes_per_value);
}

// ---- fused max-pool --------------------------------------------------------------------------------

// For filters of at most this many products, listing a pool's winners takes longer than multiplying by the
// three zeros of four that a 2x2 pool leaves.
constexpr std::int64_t small_filter = 32;

// The sums over winners keep offsets in 32 bits: into the part of the padded image that the windows of a
// pooled row read, and into the filters, whose runs are filled up to whole vectors.
bool offsets_fit(const ConvParams& p, const PoolParams& pool) {
    const auto reach = [](std::int64_t cells, std::int64_t step) { return double((cells - 1) * step + 1); };
    const double rows = reach(pool.KH, pool.dil_h) * double(p.stride_h) + reach(p.KH, p.dil_h);
    const double columns = reach(p.OW + pool.stride_w, p.stride_w) + reach(p.KW, p.dil_w);
    const double run = double(p.C / p.groups + lanes<float>);
    const double filters = double(p.F) * double(p.KH) * double(p.KW) * run;
    return std::max(rows * columns * double(p.C), filters) < 0x1p31;
}

bool suits_unpooled(const ConvParams& p, std::int64_t bytes_per_value) {
    return p.KH * p.KW * p.C / p.groups <= small_filter && p.F / p.groups >= vector_bytes / bytes_per_value;
}

}  // namespace

bool is_pointwise(const ConvParams& p) {
    return p.KH == 1 && p.KW == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_h == 0 && p.pad_w == 0 &&
           p.OH == p.H && p.OW == p.W;
}

bool is_two_by_two(const ConvParams& p, const PoolParams& pool) {
    return pool.KH == 2 && pool.KW == 2 && pool.stride_h == 2 && pool.stride_w == 2 && pool.pad_h == 0 &&
           pool.pad_w == 0 && pool.dil_h == 1 && pool.dil_w == 1 && 2 * pool.OH <= p.OH &&
           2 * pool.OW <= p.OW;
}

std::int64_t images_in_columns(const ConvParams& p, std::int64_t bytes_per_value) {
    const double pixels = double(p.OH) * double(p.OW), patch = double(p.KH) * double(p.KW) * double(p.C);
    return std::int64_t(double(matrix_bytes) / (pixels * patch * double(bytes_per_value)));
}

ForwardWay forward_way(const ConvParams& p, std::int64_t bytes_per_value, Winograd winograd,
                       Preparation filters) {
    if (is_depthwise(p)) {
        return suits_depthwise_tiles(p, bytes_per_value) ? ForwardWay::depthwise_tiles
                                                         : ForwardWay::depthwise;
    }
    if (suits_winograd(p, bytes_per_value, winograd) &&
        winograd_pays(over_outputs(p), direct_share, filters)) {
        return ForwardWay::winograd;
    }
    return columns_suit_forward(p, bytes_per_value) ? ForwardWay::columns : ForwardWay::direct;
}

DataWay data_way(const ConvParams& p, std::int64_t bytes_per_value, Winograd winograd) {
    if (is_depthwise(p)) return DataWay::depthwise;
    if (suits_winograd(p, bytes_per_value, winograd) && winograd_pays(over_inputs(p), direct_share)) {
        return DataWay::winograd;
    }
    return columns_suit_data(p, bytes_per_value) ? DataWay::columns : DataWay::direct;
}

WeightWay weight_way(const ConvParams& p, std::int64_t bytes_per_value, Winograd winograd) {
    if (is_depthwise(p)) return WeightWay::depthwise;
    if (suits_winograd(p, bytes_per_value, winograd) && winograd_pays(over_outputs(p), direct_share)) {
        return WeightWay::winograd;
    }
    return columns_suit_weight(p, bytes_per_value) ? WeightWay::columns : WeightWay::direct;
}

// Where windows overlap, the fused kernel gains only from a backward pass over the winners.  Without one,
// storing the whole map and pooling it afterwards is faster.
bool conv2d_pool_fuses(const ConvParams& p, const PoolParams& pool, bool need_saved) {
    const bool overlapping = pool.KH > pool.stride_h || pool.KW > pool.stride_w;
    if (overlapping && !need_saved) return false;
    return pool.KH * pool.KW <= relu_off && offsets_fit(p, pool);  // a winner's place is kept in one byte
}

PooledForwardWay pooled_forward_way(const ConvParams& p, const PoolParams& pool,
                                    std::int64_t bytes_per_value, Winograd winograd, Preparation filters) {
    if (!is_two_by_two(p, pool)) return PooledForwardWay::bands;
    if (suits_winograd(p, bytes_per_value, winograd) &&
        winograd_pays(over_outputs(p), direct_share, filters)) {
        return PooledForwardWay::winograd;
    }
    return PooledForwardWay::tiles;
}

PooledDataWay pooled_data_way(const ConvParams& p, const PoolParams& pool, std::int64_t bytes_per_value,
                              Winograd winograd) {
    if (is_two_by_two(p, pool) && suits_winograd(p, bytes_per_value, winograd) &&
        winograd_pays(over_inputs(p), sparse_data_share)) {
        return PooledDataWay::winograd;
    }
    return PooledDataWay::sparse;
}

PooledWeightWay pooled_weight_way(const ConvParams& p, const PoolParams& pool, std::int64_t bytes_per_value,
                                  Winograd winograd) {
    if (!is_two_by_two(p, pool)) return PooledWeightWay::sparse;
    if (suits_winograd(p, bytes_per_value, winograd) &&
        winograd_pays(over_outputs(p), sparse_weight_share)) {
        return PooledWeightWay::winograd;
    }
    return suits_unpooled(p, bytes_per_value) ? PooledWeightWay::unpooled : PooledWeightWay::sparse;
}

}  // namespace minicnn
