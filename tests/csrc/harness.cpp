// Drives every CPU kernel over a spread of shapes, under the sanitizers: no torch, threads of its own, and
// buffers of exactly the size that the contract gives, so that one element too far is seen.  It checks that
// results do not depend on the number of threads; what they should be, the Python tests check.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "../../csrc/cpu/conv2d/winograd_passes.h"
#include "../../csrc/cpu/core/scratch.h"
#include "../../csrc/ops.h"
#include "arrays.h"
#include "bfloat16_layers.h"
#include "bfloat16_maps.h"
#include "conv_shapes.h"
#include "helper_threads.h"
#include "session_plans.h"

namespace minicnn {
namespace {

template <typename T>
void convolutions() {
    const ConvShape shapes[] = {{2, 1, 12, 12, 6, 5, 1, 2, 1, 1},
                                {3, 3, 9, 11, 16, 3, 1, 1, 1, 1},
                                {2, 6, 14, 14, 16, 5, 1, 0, 1, 1},
                                {2, 32, 14, 14, 64, 3, 1, 1, 1, 1},
                                {1, 17, 7, 5, 33, 3, 2, 1, 1, 1},
                                {2, 8, 9, 9, 8, 3, 1, 2, 2, 1},
                                {2, 16, 8, 8, 16, 3, 1, 1, 1, 16},
                                {2, 12, 6, 7, 18, 3, 1, 1, 1, 3},
                                {2, 40, 5, 5, 24, 1, 1, 0, 1, 1},
                                {1, 64, 12, 12, 64, 3, 1, 1, 1, 1},
                                {1, 3, 23, 23, 8, 7, 2, 3, 1, 1},
                                {0, 4, 6, 6, 4, 3, 1, 1, 1, 1},
                                {1, 5, 1, 1, 7, 3, 1, 1, 1, 1},
                                {1, 130, 6, 6, 128, 3, 1, 1, 1, 1},
                                {1, 130, 6, 7, 129, 3, 2, 1, 1, 1},
                                {3, 37, 9, 8, 37, 3, 2, 1, 1, 37},
                                {2, 20, 5, 11, 20, 5, 1, 2, 1, 20},
                                {1, 24, 11, 13, 24, 5, 2, 3, 2, 24},
                                {1, 6, 70, 66, 20, 3, 1, 1, 1, 1},
                                {2, 20, 40, 37, 20, 5, 1, 2, 1, 1},
                                // small maps: by columns, and with much padding
                                {5, 9, 2, 3, 35, 3, 1, 1, 1, 1},
                                {2, 11, 9, 9, 38, 7, 1, 0, 1, 1},
                                {2, 9, 5, 6, 7, 5, 1, 2, 1, 1}};
    for (const ConvShape& s : shapes) {
        const ConvParams p = params_of(s);
        const int64_t xs = s.N * s.C * s.H * s.W, ws = s.F * s.K * s.K * s.C / s.groups,
                      ys = s.N * p.OH * p.OW * s.F;
        const std::string name =
            "conv2d C" + std::to_string(s.C) + " F" + std::to_string(s.F) + " K" + std::to_string(s.K);
        for (const bool relu : {false, true}) {
            check<T>(name, [&](Arrays<T>& a) {
                conv2d_forward(a.in(xs), a.in(ws), relu ? a.in(s.F) : nullptr, a.out(ys), p, relu);
            });
            check<T>(name + " backward", [&](Arrays<T>& a) {
                conv2d_backward(a.in(ys), relu ? a.in(ys) : nullptr, a.in(xs), a.in(ws), a.out(xs),
                                a.out(ws), a.out(s.F), p);
            });
            check<T>(name + " backward of junk", [&](Arrays<T>& a) {
                conv2d_backward(a.in(ys), a.junk(ys), a.in(xs), a.in(ws), a.out(xs), a.out(ws), a.out(s.F),
                                p);
            });
            const PoolParams pools[] = {pool_over(p.OH, p.OW, 2, 2, 0), pool_over(p.OH, p.OW, 3, 2, 1)};
            for (const PoolParams& pool : pools) {
                if (pool.OH < 1 || pool.OW < 1 || !conv2d_pool_fuses(p, pool, true)) continue;
                const int64_t pooled = s.N * pool.OH * pool.OW * s.F;
                check<T>(name + " pool", [&](Arrays<T>& a) {
                    const T *x = a.in(xs), *w = a.in(ws);
                    auto* winner = a.template out_of<std::uint8_t>(pooled);
                    conv2d_pool_forward(x, w, a.in(s.F), a.out(pooled), winner, p, pool, relu);
                    conv2d_pool_backward(a.in(pooled), winner, x, w, a.out(xs), a.out(ws), a.out(s.F), p,
                                         pool);
                });
                check<T>(name + " pool backward of junk", [&](Arrays<T>& a) {
                    const auto* winner = a.template junk<std::uint8_t>(pooled);
                    conv2d_pool_backward(a.in(pooled), winner, a.in(xs), a.in(ws), a.out(xs), a.out(ws),
                                         a.out(s.F), p, pool);
                    conv2d_pool_backward<T>(a.in(pooled), winner, a.in(xs), a.in(ws), nullptr, nullptr,
                                            a.out(s.F), p, pool);
                });
            }
        }
    }
}

void expect(bool holds, const std::string& name) {
    if (!holds) std::fprintf(stderr, "expected: %s\n", name.c_str());
    failures += !holds;
}

// What was taken stays valid while more is taken, in the same object or in one inside it, however much that
// is; what an object took is free again after it.
void scratch_memory() {
    for (const std::ptrdiff_t size : {0, 1, 1000, 100000, 3000000}) {
        Scratch outer;
        auto* first = outer.take<std::uint8_t>(1000);
        std::fill_n(first, 1000, std::uint8_t{7});
        const void* before = nullptr;
        for (int round = 0; round < 3; ++round) {
            Scratch inner;
            auto* second = inner.take<double>(size);
            auto* third = inner.take<std::uint8_t>(1000);
            std::fill_n(second, size, 1.0);
            std::fill_n(third, 1000, std::uint8_t{8});
            expect(reinterpret_cast<std::uintptr_t>(second) % 64 == 0, "scratch memory is aligned");
            expect(size == 0 || second[size - 1] == 1.0, "an array keeps its values");
            expect(round == 0 || second == before, "memory is used again");
            before = second;
        }
        expect(std::all_of(first, first + 1000, [](std::uint8_t value) { return value == 7; }),
               "an array keeps its values while others are taken");
    }
}

// Winograd's way by its own entry points, so that it runs whatever the router would choose:
// full vectors of channels and ragged ones, whole tiles and parts of them, each padding, and a filter
// gradient so large that its filters are shared out in parts.
void winograds() {
    const ConvShape shapes[] = {{3, 17, 15, 13, 33, 3, 1, 1, 1, 1}, {3, 40, 15, 15, 72, 3, 1, 1, 1, 1},
                                {4, 64, 9, 14, 64, 3, 1, 0, 1, 1},  {5, 16, 10, 11, 16, 3, 1, 2, 1, 1},
                                {4, 256, 8, 8, 256, 3, 1, 1, 1, 1}, {1, 48, 44, 41, 32, 3, 1, 1, 1, 1}};
    for (const ConvShape& s : shapes) {
        const ConvParams p = params_of(s);
        const int64_t xs = s.N * s.C * s.H * s.W, ws = s.F * 9 * s.C, ys = s.N * p.OH * p.OW * s.F;
        const PoolParams pool = pool_over(p.OH, p.OW, 2, 2, 0);
        const int64_t pooled = s.N * pool.OH * pool.OW * s.F;
        for (const bool relu : {false, true}) {
            const std::string name = "winograd C" + std::to_string(s.C);
            check<float>(name, [&](Arrays<float>& a) {
                const float *x = a.in(xs), *w = a.in(ws), *bias = relu ? a.in(s.F) : nullptr;
                Kept kept;
                const WinogradFilters filters = winograd_forward_filters(w, bias, p, kept);
                expect(winograd_forward(x, filters, a.out(ys), p, relu), name + " is finite");
                auto* winner = a.out_of<std::uint8_t>(pooled);
                expect(winograd_pooled_forward(x, filters, a.out(pooled), winner, p, pool, relu),
                       name + " pool is finite");
                const float *dy = a.in(ys), *relu_y = relu ? a.in(ys) : nullptr, *dy_pooled = a.in(pooled);
                expect(winograd_data(dy, relu_y, nullptr, w, a.out(xs), p), name + " dx is finite");
                expect(winograd_weight(dy, relu_y, nullptr, x, a.out(ws), p), name + " dw is finite");
                expect(winograd_data(dy_pooled, nullptr, winner, w, a.out(xs), p),
                       name + " pool dx is finite");
                expect(winograd_weight(dy_pooled, nullptr, winner, x, a.out(ws), p),
                       name + " pool dw is finite");
            });
        }
    }
    const ConvParams p = params_of({2, 17, 15, 13, 33, 3, 1, 1, 1, 1});
    const int64_t xs = 2 * 17 * 15 * 13, ys = 2 * 33 * 15 * 13, ws = 33 * 9 * 17;
    check<float>("what is not finite goes the direct way", [&](Arrays<float>& a) {
        float *x = a.inout(xs), *dy = a.inout(ys);
        x[xs / 2] = dy[ys / 2] = INFINITY;
        conv2d_forward<float>(x, a.in(ws), a.in(33), a.out(ys), p, true);
        conv2d_backward<float>(dy, a.in(ys), x, a.in(ws), a.out(xs), a.out(ws), a.out(33), p);
    });
}

template <typename T>
void dense_layers() {
    const int64_t shapes[][3] = {{1, 400, 120}, {128, 84, 10},   {5, 1, 1},  {33, 257, 65},
                                 {0, 7, 5},     {130, 513, 130}, {9, 37, 35}};
    for (const auto& [N, in, out] : shapes) {
        check<T>("dense", [&, N = N, in = in, out = out](Arrays<T>& a) {
            const T *x = a.in(N * in), *w = a.in(in * out);
            T* y = a.out(N * out);
            dense_forward(x, w, a.in(out), y, N, in, out, true);
            for (const T* saved : {static_cast<const T*>(y), a.junk(N * out)}) {
                dense_backward(a.in(N * out), saved, x, w, a.out(N * in), a.out(in * out), a.out(out), N,
                               in, out);
            }
        });
    }
}

template <typename T, typename Index>
void max_pools(const ImageShape& s, const PoolParams& pool) {
    const int64_t xs = s.N * s.H * s.W * s.C, ys = s.N * pool.OH * pool.OW * s.C;
    check<T>("max_pool2d", [&](Arrays<T>& a) {
        Index* argmax = a.template out_of<Index>(ys);
        const T* x = a.in(xs);
        max_pool2d_forward(x, a.out(ys), argmax, s, pool);
        max_pool2d_forward(x, a.out(ys), static_cast<Index*>(nullptr), s, pool);
        max_pool2d_backward(a.in(ys), static_cast<const Index*>(argmax), a.out(xs), s, pool);
        max_pool2d_backward(a.in(ys), a.template junk<Index>(ys), a.out(xs), s, pool);
    });
    check<T>("batch_norm2d_pool", [&](Arrays<T>& a) {
        Index* argmax = a.template out_of<Index>(ys);
        const T *x = a.in(xs), *weight = a.in(s.C);
        T *y = a.out(ys), *mean = a.out(s.C), *invstd = a.out(s.C);
        batch_norm2d_pool_forward(x, weight, a.in(s.C), a.inout(s.C), a.positive(s.C), y, argmax, mean,
                                  invstd, s, {0.1, 1e-5, true}, pool);
        batch_norm2d_pool_backward(a.in(ys), static_cast<const T*>(y), static_cast<const Index*>(argmax), x,
                                   weight, static_cast<const T*>(mean), static_cast<const T*>(invstd),
                                   a.out(xs), a.out(s.C), a.out(s.C), s, true, pool);
        batch_norm2d_pool_backward(a.in(ys), a.junk(ys), a.template junk<Index>(ys), x, weight, a.junk(s.C),
                                   a.junk(s.C), a.out(xs), a.out(s.C), a.out(s.C), s, true, pool);
    });
}

template <typename T>
void images() {
    const ImageShape shapes[] = {{2, 3, 9, 7}, {1, 70, 8, 8}, {3, 1, 5, 6}, {0, 4, 6, 6}, {2, 45, 31, 30}};
    for (const ImageShape& s : shapes) {
        const int64_t xs = s.N * s.H * s.W * s.C;
        for (const auto& [kernel, stride, pad] : {std::array<int64_t, 3>{2, 2, 0}, {3, 2, 1}, {3, 1, 1}}) {
            const PoolParams pool = pool_over(s.H, s.W, kernel, stride, pad);
            max_pools<T, std::uint8_t>(s, pool);
            max_pools<T, int64_t>(s, pool);
            check<T>("avg_pool2d", [&](Arrays<T>& a) {
                const int64_t ys = s.N * pool.OH * pool.OW * s.C;
                avg_pool2d_forward(a.in(xs), a.out(ys), s, pool, true);
                avg_pool2d_backward(a.in(ys), a.out(xs), s, pool, false);
            });
        }
        for (const auto& [OH, OW] : {std::array<int64_t, 2>{1, 1}, {3, 2}, {11, 13}}) {
            check<T>("adaptive_avg_pool2d", [&, OH = OH, OW = OW](Arrays<T>& a) {
                adaptive_avg_pool2d_forward(a.in(xs), a.out(s.N * OH * OW * s.C), s, OH, OW);
                adaptive_avg_pool2d_backward(a.in(s.N * OH * OW * s.C), a.out(xs), s, OH, OW);
            });
        }
        for (const bool training : {true, false}) {
            check<T>("batch_norm2d", [&](Arrays<T>& a) {
                const T *x = a.in(xs), *weight = a.in(s.C);
                T *y = a.out(xs), *mean = a.out(s.C), *invstd = a.out(s.C);
                batch_norm2d_forward(x, weight, a.in(s.C), a.inout(s.C), a.positive(s.C), a.in(xs), y, mean,
                                     invstd, s, {0.1, 1e-5, training}, true);
                batch_norm2d_backward(a.in(xs), static_cast<const T*>(y), x, weight,
                                      static_cast<const T*>(mean), static_cast<const T*>(invstd), a.out(xs),
                                      a.out(xs), a.out(s.C), a.out(s.C), s, training);
                batch_norm2d_backward(a.in(xs), a.junk(xs), x, weight, a.junk(s.C), a.junk(s.C), a.out(xs),
                                      a.out(xs), a.out(s.C), a.out(s.C), s, training);
            });
        }
        check<T>("fold_batch_norm2d", [&](Arrays<T>& a) {
            const int64_t F = s.C, size = s.H * s.W;
            fold_batch_norm2d(a.in(F * size), a.in(F), a.in(F), a.in(F), a.in(F), a.positive(F),
                              a.out(F * size), a.out(F), F, size, 1e-5);
        });
        check<T>("flatten and concat", [&](Arrays<T>& a) {
            flatten_forward(a.in(xs), a.out(xs), s);
            flatten_backward(a.in(xs), a.out(xs), s);
            const int64_t pixels = s.N * s.H * s.W;
            const Piece<const T> pieces[] = {{a.in(xs), s.C}, {a.in(pixels * 5), 5}};
            concat_forward(pieces, 2, a.out(pixels * (s.C + 5)), pixels);
            const Piece<T> parts[] = {{a.out(xs), s.C}, {a.out(pixels * 5), 5}};
            concat_backward(a.in(pixels * (s.C + 5)), parts, 2, pixels);
        });
    }
}

// Batches with every change, in rows as long as vectors, shorter and longer.
template <typename T>
void batches() {
    for (const auto& [C, H, W] : {std::array<int64_t, 3>{1, 28, 28}, {3, 5, 7}, {4, 3, 40}, {3, 32, 33}}) {
        check<T>("make_batch", [&, C = C, H = H, W = W](Arrays<T>& a) {
            const int64_t M = 3, B = 9, size = C * H * W;
            const Bytes images{a.template junk<std::uint8_t>(M * size), C, H, W, size, H * W, W, 1};
            std::vector<int64_t> rows(std::size_t(B), 0);
            std::vector<BatchRow> table(std::size_t(B), BatchRow{});
            std::vector<float> fill(std::size_t(C), 99);
            for (int64_t n = 0; n < B; ++n) {
                BatchRow& r = table[std::size_t(n)];
                const auto k = int32_t(n);
                rows[std::size_t(n)] = n % M;
                r.flip = k & 1, r.down = (k - 4) * 3, r.right = (4 - k) * 5, r.warped = k & 2;
                const float turned[2][3] = {{0.6f, -0.8f, float(k)}, {0.8f, 0.6f, -2}};
                std::copy(turned[0], turned[0] + 3, r.affine[0]);
                std::copy(turned[1], turned[1] + 3, r.affine[1]);
                r.reach[0] = r.reach[1] = -1, r.reach[2] = float(H), r.reach[3] = float(W);
                r.brightness = n % 3 ? 1.2f : 1, r.contrast = n % 4 ? 1 : 0.7f, r.saturation = 1.3f;
                r.step = n % 5 ? 1 : 8, r.threshold = n % 2 ? 256 : 100;
                r.cutout = {-5, 2, k, 900}, r.erase = {1, -k, 2, 3}, r.patch = {0, 1, k, int32_t(W) + 1};
                r.partner = int32_t((n + 1) % B), r.share = n % 2 ? 1 : 0.6f;
            }
            const Normalization<T> normalization{a.in(C), a.in(C), fill.data()};
            make_batch(images, {rows.data(), table.data(), B}, true, normalization, a.out(B * size));
            make_batch(images, {rows.data(), table.data(), 0}, false, normalization, a.out(0));
        });
    }
}

template <typename T>
void rows() {
    for (const auto& [N, K] : {std::array<int64_t, 2>{1, 10}, {300, 100}, {0, 3}, {7, 1}}) {
        check<T>("softmax", [&, N = N, K = K](Arrays<T>& a) {
            T* p = a.out(N * K);
            softmax_forward(a.in(N * K), p, N, K);
            softmax_backward(a.in(N * K), static_cast<const T*>(p), a.out(N * K), N, K);
            softmax_backward(a.in(N * K), a.junk(N * K), a.out(N * K), N, K);
            std::vector<int64_t> labels(static_cast<std::size_t>(N));
            for (int64_t n = 0; n < N; ++n) labels[std::size_t(n)] = n % K;
            const T* weight = a.positive(K);
            const Targets<T> targets[] = {{labels.data(), nullptr, weight, 0.1, -100, Reduction::mean},
                                          {labels.data(), nullptr, weight, 0.1, 0, Reduction::mean},
                                          {labels.data(), nullptr, nullptr, 0.0, 1, Reduction::sum},
                                          {labels.data(), nullptr, weight, 0.0, 2, Reduction::none},
                                          {nullptr, p, nullptr, 0.0, -100, Reduction::mean}};
            for (const Targets<T>& t : targets) {
                T* probs = a.out(N * K);
                T* loss = a.out(t.reduction == Reduction::none ? N : 1);
                softmax_cross_entropy_forward(a.in(N * K), t, loss, probs, N, K);
                softmax_cross_entropy_backward(static_cast<const T*>(probs), t, a.out(N * K), N, K);
            }
        });
    }
}

template <typename T>
void elementwise_and_optimizers() {
    for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{70001}}) {
        check<T>("elementwise", [&](Arrays<T>& a) {
            T* y = a.out(size);
            relu_forward(a.in(size), y, size);
            relu_backward(a.in(size), static_cast<const T*>(y), a.out(size), size);
            relu_backward(a.in(size), a.junk(size), a.out(size), size);
            relu6_forward(a.in(size), y, size);
            relu6_backward(a.in(size), a.junk(size), a.out(size), size);
            for (const bool relu : {false, true})
                add_forward(a.in(size), a.in(size), a.out(size), size, relu);
            dropout(a.in(size), a.template junk<std::uint8_t>(size), T(2), a.out(size), size);
        });
        check<T>("optimizers", [&](Arrays<T>& a) {
            std::vector<Parameter<T>> list;
            for (const int64_t n : {size, int64_t{7}, size / 3}) {
                list.push_back({a.inout(n), a.in(n), a.positive(n), a.positive(n), n});
            }
            const auto count = int64_t(list.size());
            sgd_step(list.data(), count, {0.1, 0.9, 0.01, true});
            sgd_step(list.data(), count, {0.1, 0, 0.01, false});
            adam_step(list.data(), count, {1e-3, 0.9, 0.999, 1e-8, 0.01, true, 3});
            rmsprop_step(list.data(), count, {1e-2, 0.99, 1e-8, 0.01, 0.9});
            ema_update(list.data(), count, 0.99);
            scale(list.data(), count, 0.5);
            *a.template out_of<double>(1) = sum_of_squares(list.data(), count);
        });
    }
}

template <typename T>
void everything() {
    convolutions<T>();
    dense_layers<T>();
    images<T>();
    batches<T>();
    rows<T>();
    elementwise_and_optimizers<T>();
}

}  // namespace
}  // namespace minicnn

int main() {
    minicnn::helper_threads();
    minicnn::everything<float>();
    minicnn::everything<double>();
    minicnn::bfloat16_maps();
    minicnn::winograds();
    minicnn::bfloat16_layers();
    minicnn::scratch_memory();
    minicnn::session_plans();
    std::printf("%d runs, %d failures\n", minicnn::runs, minicnn::failures);
    return minicnn::failures == 0 ? 0 : 1;
}
