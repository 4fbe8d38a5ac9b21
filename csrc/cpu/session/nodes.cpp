#include "nodes.h"

#include "../../ops.h"
#include "../bfloat16/tile_conv2d.h"
#include "../bfloat16/tile_route.h"
#include "../core/gemm.h"
#include "../core/scratch.h"

namespace minicnn::session {
namespace {

template <typename T>
const T* in(const void* const* inputs, std::size_t i = 0) {
    return static_cast<const T*>(inputs[i]);
}

// Adds an operation whose kernel is body(zero, inputs, output), where the type of `zero` is that of the
// values.
template <typename Body>
int add_node(Plan& plan, const std::vector<int>& inputs, ImageShape shape, const Body& body) {
    const Type type = plan.value(inputs[0]).type;
    const auto of = [&](auto zero) {
        using T = decltype(zero);
        return [body](const void* const* from, void* to) { body(T{}, from, static_cast<T*>(to)); };
    };
    return type == Type::bfloat16 ? plan.add(inputs, {shape, type}, of(bfloat16{}))
                                  : plan.add(inputs, {shape, type}, of(float{}));
}

void take_shape(ConvParams& p, const ImageShape& shape) {
    p.N = shape.N;
    p.C = shape.C;
    p.H = shape.H;
    p.W = shape.W;
}

bool on_tiles(const ConvParams& p, const PoolParams* pool) {
    return forward_suits_tiles(p, pool) && tile_unit_kind() != TileUnitKind::none;
}

bool every_window_has_cells(const ConvParams& p, const PoolParams& pool) {
    const auto along = [](std::int64_t windows, std::int64_t stride, std::int64_t pad,
                          std::int64_t dilation, std::int64_t kernel, std::int64_t size) {
        return dilation == 1 && pad < kernel && (windows - 1) * stride - pad < size;
    };
    return along(pool.OH, pool.stride_h, pool.pad_h, pool.dil_h, pool.KH, p.OH) &&
           along(pool.OW, pool.stride_w, pool.pad_w, pool.dil_w, pool.KW, p.OW);
}

int float_conv2d(Plan& plan, int x, const FiltersPtr& filters, const ConvParams& p, bool relu) {
    const ForwardWay way = forward_way(p, sizeof(float), Winograd::allowed, Preparation::once);
    const ForwardFilters<float> ready = filters->ready(way, p);
    const ImageShape result{p.N, p.F, p.OH, p.OW};
    return plan.add({x}, {result, Type::float32}, [=](const void* const* from, void* to) {
        auto* y = static_cast<float*>(to);
        if (!forward_by(way, ready, in<float>(from), y, p, relu)) {
            conv2d_forward(in<float>(from), filters->weight(), filters->bias(), y, p, relu);
        }
    });
}

int bfloat16_conv2d(Plan& plan, int x, int residual, const FiltersPtr& filters, const ConvParams& p,
                    const ImageShape& result, bool relu) {
    const bool tiled = on_tiles(p, nullptr), adds = residual >= 0;
    const TileForward pass(p, nullptr);
    const PackedTiles tiles = tiled ? filters->tiles(pass) : PackedTiles{};
    const Value value{result, Type::bfloat16};
    const std::vector<int> inputs = adds ? std::vector<int>{x, residual} : std::vector<int>{x};
    return plan.add(inputs, value, [=](const void* const* from, void* to) {
        const auto *images = in<bfloat16>(from), *others = adds ? in<bfloat16>(from, 1) : nullptr;
        auto* y = static_cast<bfloat16*>(to);
        const bool done = tiled && with_tile_unit([&](auto unit) {
                              return pass.run<decltype(unit)>(images, tiles, {y, relu, others});
                          });
        if (done) return;
        conv2d_forward(images, filters->weight(), filters->bias(), y, p, relu && !adds);
        if (adds) add_forward<bfloat16>(y, others, y, value.size(), relu);
    });
}

int float_conv2d_pool(Plan& plan, int x, const FiltersPtr& filters, const ConvParams& p,
                      const PoolParams& pool, bool relu) {
    const PooledForwardWay way =
        pooled_forward_way(p, pool, sizeof(float), Winograd::allowed, Preparation::once);
    const ForwardFilters<float> ready = filters->ready(way, p);
    const ImageShape result{p.N, p.F, pool.OH, pool.OW};
    return plan.add({x}, {result, Type::float32}, [=](const void* const* from, void* to) {
        const auto* images = in<float>(from);
        auto* y = static_cast<float*>(to);
        if (!pooled_forward_by(way, ready, images, y, nullptr, p, pool, relu)) {
            conv2d_pool_forward(images, filters->weight(), filters->bias(), y, nullptr, p, pool, relu);
        }
    });
}

int bfloat16_conv2d_pool(Plan& plan, int x, const FiltersPtr& filters, const ConvParams& p,
                         const PoolParams& pool, bool relu) {
    const bool tiled = on_tiles(p, &pool);
    const TileForward pass(p, tiled ? &pool : nullptr);
    const PackedTiles tiles = tiled ? filters->tiles(pass) : PackedTiles{};
    const ImageShape result{p.N, p.F, pool.OH, pool.OW};
    return plan.add({x}, {result, Type::bfloat16}, [=](const void* const* from, void* to) {
        const auto* images = in<bfloat16>(from);
        auto* y = static_cast<bfloat16*>(to);
        const bool done = tiled && with_tile_unit([&](auto unit) {
                              return pass.run<decltype(unit)>(images, tiles, {y, relu});
                          });
        if (!done) {
            conv2d_pool_forward(images, filters->weight(), filters->bias(), y, nullptr, p, pool, relu);
        }
    });
}

}  // namespace

int images(Plan& plan, int x, std::vector<float> table) {
    const Value& given = plan.value(x);
    const ImageShape s = given.shape;
    if (given.type == Type::float32) {
        return plan.add({x}, {s, Type::float32}, [s](const void* const* from, void* to) {
            flatten_backward(in<float>(from), static_cast<float*>(to), s);
        });
    }
    return plan.add({x}, {s, Type::float32}, [s, table](const void* const* from, void* to) {
        const std::int64_t pixels = s.H * s.W;
        parallel_for(0, s.N * s.C, 1 + 16384 / (pixels + 1), [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t plane = first; plane < last; ++plane) {
                const std::int64_t c = plane % s.C;
                const auto* bytes = in<std::uint8_t>(from) + plane * pixels;
                const float* of_byte = table.data() + c * 256;
                float* y = static_cast<float*>(to) + plane / s.C * pixels * s.C + c;
                for (std::int64_t i = 0; i < pixels; ++i) y[i * s.C] = of_byte[bytes[i]];
            }
        });
    });
}

int conv2d(Plan& plan, int x, int residual, const FiltersPtr& filters, ConvParams p, bool relu) {
    const Value& value = plan.value(x);
    take_shape(p, value.shape);
    if (value.type == Type::bfloat16) {
        return bfloat16_conv2d(plan, x, residual, filters, p, {p.N, p.F, p.OH, p.OW}, relu);
    }
    if (residual < 0) return float_conv2d(plan, x, filters, p, relu);
    return add(plan, float_conv2d(plan, x, filters, p, /*relu=*/false), residual, relu);
}

// Where no kernel fuses the pool, ReLU belongs to the convolution, which does it in registers; after the
// pool where a window has no cell, whose maximum is minus infinity.
int conv2d_pool(Plan& plan, int x, const FiltersPtr& filters, ConvParams p, const PoolParams& pool,
                bool relu_wanted) {
    const Value& value = plan.value(x);
    take_shape(p, value.shape);
    if (!conv2d_pool_fuses(p, pool, /*need_saved=*/false)) {
        const bool early = relu_wanted && every_window_has_cells(p, pool);
        const int pooled = max_pool2d(plan, conv2d(plan, x, /*residual=*/-1, filters, p, early), pool);
        return relu_wanted && !early ? relu(plan, pooled) : pooled;
    }
    return value.type == Type::bfloat16 ? bfloat16_conv2d_pool(plan, x, filters, p, pool, relu_wanted)
                                        : float_conv2d_pool(plan, x, filters, p, pool, relu_wanted);
}

int dense(Plan& plan, int x, const FiltersPtr& filters, std::int64_t outputs, bool relu) {
    const Value& value = plan.value(x);
    const std::int64_t N = value.shape.N, depth = value.shape.C;
    const ImageShape result{N, outputs, 1, 1};
    if (value.type == Type::bfloat16) {
        return bfloat16_conv2d(plan, x, /*residual=*/-1, filters, as_convolution(N, depth, outputs), result,
                               relu);
    }
    if (N < rows_worth_packing) {
        return plan.add({x}, {result, Type::float32}, [=](const void* const* from, void* to) {
            dot_products(in<float>(from), filters->weight(), filters->bias(), static_cast<float*>(to), N,
                         outputs, depth, relu);
        });
    }
    const PackedOperand<float> operand = filters->operand(depth);
    return plan.add({x}, {result, Type::float32}, [=](const void* const* from, void* to) {
        gemm<float>({in<float>(from), depth, 1, filters->weight(), 1, depth, filters->bias(),
                     static_cast<float*>(to), N, outputs, depth, relu},
                    operand);
    });
}

int batch_norm2d(Plan& plan, int x, int residual, const BatchNorm& norm, bool relu) {
    const ImageShape s = plan.value(x).shape;
    const std::vector<int> inputs = residual < 0 ? std::vector<int>{x} : std::vector<int>{x, residual};
    const auto shared = std::make_shared<BatchNorm>(norm);
    return add_node(plan, inputs, s, [=](auto zero, const void* const* from, auto* y) {
        using T = decltype(zero);
        const auto given = [](std::vector<float>& values) {
            return values.empty() ? nullptr : values.data();
        };
        Scratch scratch;
        float* statistics = scratch.take<float>(2 * s.C);
        batch_norm2d_forward<T>(in<T>(from), given(shared->gamma), given(shared->beta), shared->mean.data(),
                                shared->var.data(), inputs.size() > 1 ? in<T>(from, 1) : nullptr, y,
                                statistics, statistics + s.C, s, {0.0, shared->eps, /*training=*/false},
                                relu);
    });
}

int max_pool2d(Plan& plan, int x, const PoolParams& pool) {
    const ImageShape s = plan.value(x).shape;
    return add_node(
        plan, {x}, {s.N, s.C, pool.OH, pool.OW}, [=](auto zero, const void* const* from, auto* y) {
            using T = decltype(zero);
            if (pool.KH * pool.KW <= 255) {  // places in bytes fill vectors, though nobody asks for them
                max_pool2d_forward<T, std::uint8_t>(in<T>(from), y, nullptr, s, pool);
            } else {
                max_pool2d_forward<T, std::int64_t>(in<T>(from), y, nullptr, s, pool);
            }
        });
}

int avg_pool2d(Plan& plan, int x, const PoolParams& pool, bool count_include_pad) {
    const ImageShape s = plan.value(x).shape;
    return add_node(plan, {x}, {s.N, s.C, pool.OH, pool.OW},
                    [=](auto zero, const void* const* from, auto* y) {
                        avg_pool2d_forward(in<decltype(zero)>(from), y, s, pool, count_include_pad);
                    });
}

int adaptive_avg_pool2d(Plan& plan, int x, std::int64_t OH, std::int64_t OW) {
    const ImageShape s = plan.value(x).shape;
    return add_node(plan, {x}, {s.N, s.C, OH, OW}, [=](auto zero, const void* const* from, auto* y) {
        adaptive_avg_pool2d_forward(in<decltype(zero)>(from), y, s, OH, OW);
    });
}

int relu(Plan& plan, int x) {
    const Value& value = plan.value(x);
    return add_node(plan, {x}, value.shape,
                    [size = value.size()](auto zero, const void* const* from, auto* y) {
                        relu_forward(in<decltype(zero)>(from), y, size);
                    });
}

int relu6(Plan& plan, int x) {
    const Value& value = plan.value(x);
    return add_node(plan, {x}, value.shape,
                    [size = value.size()](auto zero, const void* const* from, auto* y) {
                        relu6_forward(in<decltype(zero)>(from), y, size);
                    });
}

int add(Plan& plan, int a, int b, bool relu) {
    const Value& value = plan.value(a);
    const std::int64_t size = value.size();
    return add_node(plan, {a, b}, value.shape, [=](auto zero, const void* const* from, auto* y) {
        using T = decltype(zero);
        add_forward(in<T>(from, 0), in<T>(from, 1), y, size, relu);
    });
}

int concat(Plan& plan, const std::vector<int>& pieces) {
    ImageShape shape = plan.value(pieces[0]).shape;
    std::vector<std::int64_t> channels;
    for (const int piece : pieces) channels.push_back(plan.value(piece).shape.C);
    shape.C = 0;
    for (const std::int64_t count : channels) shape.C += count;
    return add_node(plan, pieces, shape, [=](auto zero, const void* const* from, auto* y) {
        using T = decltype(zero);
        const auto count = static_cast<std::int64_t>(channels.size());
        Scratch scratch;
        auto* list = scratch.take<Piece<const T>>(count);
        for (std::int64_t k = 0; k < count; ++k) {
            const auto at = static_cast<std::size_t>(k);
            list[k] = {in<T>(from, at), channels[at]};
        }
        concat_forward(list, count, y, shape.N * shape.H * shape.W);
    });
}

int flatten(Plan& plan, int x) {
    const ImageShape s = plan.value(x).shape;
    return add_node(plan, {x}, {s.N, s.C * s.H * s.W, 1, 1},
                    [=](auto zero, const void* const* from, auto* y) {
                        flatten_forward(in<decltype(zero)>(from), y, s);
                    });
}

int softmax(Plan& plan, int x) {
    const ImageShape s = plan.value(x).shape;
    return plan.add({x}, {s, Type::float32}, [s](const void* const* from, void* to) {
        softmax_forward(in<float>(from), static_cast<float*>(to), s.N, s.C);
    });
}

int cast(Plan& plan, int x, Type type) {
    const Value& value = plan.value(x);
    const std::int64_t size = value.size();
    if (type == Type::bfloat16) {
        return plan.add({x}, {value.shape, type}, [size](const void* const* from, void* to) {
            minicnn::cast(in<float>(from), static_cast<bfloat16*>(to), size);
        });
    }
    return plan.add({x}, {value.shape, type}, [size](const void* const* from, void* to) {
        minicnn::cast(in<bfloat16>(from), static_cast<float*>(to), size);
    });
}

}  // namespace minicnn::session
