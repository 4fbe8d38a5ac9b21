// Convolution and dense layers of bfloat16, as conv2d_ops.h declares them: asks the router for the way of
// each pass and goes it.
//
// A result of the tile unit that is not finite is thrown away and computed again by widening: a tile
// multiplies values that are not its pixel's own with filters that are zero, which makes NaN of an
// infinity.
#include "../core/scratch.h"
#include "tile_conv2d.h"
#include "tile_route.h"
#include "tile_weight.h"
#include "widened.h"

namespace minicnn {
namespace {

// The gradient to the input on the tile unit; false if it has to be computed another way.
bool data_on_tiles(const bfloat16* dy, const bfloat16* relu_y, const float* weight, bfloat16* dx,
                   const ConvParams& p) {
    return data_suits_tiles(p, nullptr) &&
           with_tile_unit([&](auto unit) { return tile_data<decltype(unit)>(dy, relu_y, weight, dx, p); });
}

// The gradients to the filters and to the bias, likewise.
bool weight_on_tiles(const bfloat16* dy, const bfloat16* relu_y, const std::uint8_t* winner,
                     const bfloat16* x, float* dw, float* db, const ConvParams& p, const PoolParams* pool) {
    return dw && weight_suits_tiles(p, pool) && with_tile_unit([&](auto unit) {
               return tile_weight<decltype(unit)>(dy, relu_y, winner, x, dw, db, p);
           });
}

bool forward_on_tiles(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                      const ConvParams& p, bool relu) {
    return forward_suits_tiles(p, nullptr) && with_tile_unit([&](auto unit) {
               Scratch scratch;
               const TileForward pass(p, nullptr);
               return pass.run<decltype(unit)>(x, pass.pack(weight, bias, scratch), {y, relu});
           });
}

}  // namespace

void conv2d_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                    const ConvParams& p, bool relu) {
    if (!forward_on_tiles(x, weight, bias, y, p, relu)) {
        widened::conv2d_forward(x, weight, bias, y, p, relu);
    }
}

void conv2d_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                     bfloat16* dx, float* dw, float* db, const ConvParams& p) {
    if (dx && data_on_tiles(dy, relu_y, weight, dx, p)) dx = nullptr;
    if (weight_on_tiles(dy, relu_y, nullptr, x, dw, db, p, nullptr)) dw = db = nullptr;
    if (dx || dw || db) widened::conv2d_backward(dy, relu_y, x, weight, dx, dw, db, p);
}

void conv2d_pool_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                         std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    const bool done = forward_suits_tiles(p, &pool) && with_tile_unit([&](auto unit) {
                          Scratch scratch;
                          const TileForward pass(p, &pool);
                          const PackedTiles filters = pass.pack(weight, bias, scratch);
                          return pass.run<decltype(unit)>(x, filters, {y, relu, nullptr, winner});
                      });
    if (!done) widened::conv2d_pool_forward(x, weight, bias, y, winner, p, pool, relu);
}

void conv2d_pool_backward(const bfloat16* dy, const std::uint8_t* winner, const bfloat16* x,
                          const float* weight, bfloat16* dx, float* dw, float* db, const ConvParams& p,
                          const PoolParams& pool) {
    const bool done = dx && data_suits_tiles(p, &pool) && with_tile_unit([&](auto unit) {
                          return tile_pooled_data<decltype(unit)>(dy, winner, weight, dx, p, pool);
                      });
    if (done) dx = nullptr;
    if (weight_on_tiles(dy, nullptr, winner, x, dw, db, p, &pool)) dw = db = nullptr;
    if (dx || dw || db) widened::conv2d_pool_backward(dy, winner, x, weight, dx, dw, db, p, pool);
}

void dense_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y, std::int64_t N,
                   std::int64_t in, std::int64_t out, bool relu) {
    if (!forward_on_tiles(x, weight, bias, y, as_convolution(N, in, out), relu)) {
        widened::dense_forward(x, weight, bias, y, N, in, out, relu);
    }
}

void dense_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                    bfloat16* dx, float* dw, float* db, std::int64_t N, std::int64_t in, std::int64_t out) {
    if (dx && data_on_tiles(dy, relu_y, weight, dx, as_convolution(N, in, out))) dx = nullptr;
    if (weight_on_tiles(dy, relu_y, nullptr, x, dw, db, as_convolution(N, in, out), nullptr))
        dw = db = nullptr;
    if (dx || dw || db) widened::dense_backward(dy, relu_y, x, weight, dx, dw, db, N, in, out);
}

}  // namespace minicnn
