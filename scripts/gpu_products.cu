// Times the tensor-core products of csrc/cuda/conv2d in every configuration that may be chosen, one pass of
// a convolution in one precision.  scripts/gpu_products.py builds it, with PASS and TYPE, and runs it on a
// GPU.

#include <cstdio>
#include <cstdlib>
#include <tuple>
#include <vector>

#define with_shape with_shape_by_cost
#define tensor_product tensor_product_by_cost
#include "cuda/core/tensor_cores.h"
#undef with_shape
#undef tensor_product

namespace minicnn::cuda {

using Tried = std::tuple<TensorShape<TYPE, 128, 128, 64, 32, 2>, TensorShape<TYPE, 128, 128, 64, 64, 2>,
                         TensorShape<TYPE, 128, 64, 64, 32, 3>, TensorShape<TYPE, 64, 64, 32, 32, 4>,
                         TensorShape<TYPE, 128, 32, 32, 32, 4>, TensorShape<TYPE, 64, 128, 64, 32, 3>,
                         TensorShape<TYPE, 256, 128, 64, 64, 1>>;

inline int shape_now = 0, splits_now = 1;
inline GemmSize size_now;

template <int i = 0, typename Body>
void in_shape(const Body& body) {
    if constexpr (i < int(std::tuple_size_v<Tried>)) {
        if (i == shape_now) return body(Choice<std::tuple_element_t<i, Tried>>());
        in_shape<i + 1>(body);
    }
}

template <typename Chosen, typename A, typename B, typename Output>
void tensor_product(const A& a, const B& b, const Output& out, const GemmSize& s) {
    if constexpr (std::is_same_v<typename A::Element, TYPE>) {
        size_now = s;
        in_shape(
            [&](auto shape) { launch_tensor<typename decltype(shape)::type>(a, b, out, s, splits_now); });
    }
}

}  // namespace minicnn::cuda

#include "cuda/conv2d/tensor_conv2d.h"

namespace minicnn::cuda {

// Scratch memory is taken once, so that no time is lost for it.
cudaStream_t current_stream() { return nullptr; }
void* allocate_scratch(std::size_t bytes) {
    constexpr std::size_t most = std::size_t{1} << 30;
    static void* memory = nullptr;
    if (!memory) check(cudaMalloc(&memory, most), "memory");
    if (bytes > most) std::exit(3);
    return memory;
}
void free_scratch(void*) {}

// The arrays are as tensor cores read them already.
inline const void *images_now, *filters_now;
template <typename T>
TensorArray<T> tensor_images(const T*, const ConvParams&) {
    return TensorArray<T>(static_cast<const T*>(images_now));
}
template <typename T>
TensorArray<T> tensor_filters(const float*, const ConvParams&) {
    return TensorArray<T>(static_cast<const T*>(filters_now));
}

}  // namespace minicnn::cuda

#if PASS == 0
#include "cuda/conv2d/tensor_forward.cu"
#elif PASS == 1
#include "cuda/conv2d/tensor_input.cu"
#else
#include "cuda/conv2d/tensor_weight.cu"
#endif

namespace minicnn::cuda {
#if PASS == 2
using ShapesToChoose = ShapesOfColumns<TYPE>;
#else
using ShapesToChoose = ShapesOfRows<TYPE>;
#endif
}  // namespace minicnn::cuda

namespace minicnn {

using cuda::check;

template <typename T>
T* on_device(std::int64_t size) {
    std::vector<T> values(static_cast<std::size_t>(size));
    unsigned seed = 1;
    for (T& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = minicnn::narrow<T>(float(int(seed >> 16)) / 32768 - 1);
    }
    void* memory;
    check(cudaMalloc(&memory, values.size() * sizeof(T)), "memory");
    check(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "a copy");
    return static_cast<T*>(memory);
}

void time_all() {
    const struct {
        std::int64_t N, C, H, F, K;
    } problems[] = {{128, 128, 16, 128, 3}, {128, 256, 8, 256, 3}, {128, 64, 32, 64, 3},
                    {128, 16, 32, 16, 3},   {128, 256, 16, 64, 1}, {256, 3136, 1, 128, 1}};
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "an event");
    check(cudaEventCreate(&end), "an event");
    for (const auto& of : problems) {
        const ConvParams p{of.N, of.C, of.H, of.H,     of.F,     of.K, of.K, of.H,
                           of.H, 1,    1,    of.K / 2, of.K / 2, 1,    1,    1};
        TYPE* const x = on_device<TYPE>(of.N * of.H * of.H * of.C);
        TYPE* const y = on_device<TYPE>(of.N * of.H * of.H * of.F);
        TYPE* const filters = on_device<TYPE>(of.F * of.K * of.K * of.C);
        float* const weight = on_device<float>(of.F * of.K * of.K * of.C);
        cuda::images_now = x;
        cuda::filters_now = filters;
        const auto call = [&] {
#if PASS == 0
            cuda::tensor_conv2d_forward<TYPE>(x, weight, nullptr, y, p, false);
#elif PASS == 1
            cuda::tensor_input_gradient<TYPE>(y, filters, x, p);
#else
            cuda::tensor_weight_gradient<TYPE>(y, x, weight, p);
#endif
        };
        for (cuda::shape_now = 0; cuda::shape_now < int(std::tuple_size_v<cuda::Tried>);
             ++cuda::shape_now) {
            int BM = 0, BN = 0, HM = 0, HN = 0;
            cuda::in_shape([&](auto shape) {
                using Shape = typename decltype(shape)::type;
                BM = Shape::BM, BN = Shape::BN, HM = Shape::HM, HN = Shape::HN;
            });
            cuda::splits_now = 1;
            call();  // it tells size_now
            for (const int splits : {1, 2, 3, 4, 5, 7, 9, 14, 21, 29, 43, 58}) {
                if (cuda::size_now.K / splits < 4 * cuda::slice_depth<TYPE> && splits > 1) continue;
                const auto tiles =
                    cuda::ceil_div(cuda::size_now.M, BM) * cuda::ceil_div(cuda::size_now.N, BN);
                if (splits > 1 && tiles * splits > 1100) continue;
                cuda::splits_now = splits;
                constexpr int times = 10;
                call();
                check(cudaEventRecord(begin), "an event");
                for (int i = 0; i < times; ++i) call();
                check(cudaEventRecord(end), "an event");
                check(cudaEventSynchronize(end), "a product");
                float ms = 0;
                check(cudaEventElapsedTime(&ms, begin, end), "a time");
                int plan[5] = {};
                cuda::with_shape_by_cost(
                    cuda::ShapesToChoose(), cuda::size_now, 128, [&](auto choice, int parts) {
                        using Shape = typename decltype(choice)::type;
                        plan[0] = Shape::BM, plan[1] = Shape::BN, plan[2] = Shape::HM, plan[3] = Shape::HN;
                        plan[4] = parts;
                    });
                const bool chosen =
                    plan[0] == BM && plan[1] == BN && plan[2] == HM && plan[3] == HN && plan[4] == splits;
                std::printf(
                    "{\"problem\": \"%d to %d, %dx%d, %dx%d, batch %d\", \"tile\": \"%dx%d/%dx%d\", "
                    "\"parts\": %d, "
                    "\"plan\": \"%dx%d/%dx%d x %d\", \"chosen\": %s, \"ms\": %.5f, \"tflops\": %.1f}\n",
                    int(of.C), int(of.F), int(of.K), int(of.K), int(of.H), int(of.H), int(of.N), BM, BN, HM,
                    HN, splits, plan[0], plan[1], plan[2], plan[3], plan[4], chosen ? "true" : "false",
                    double(ms) / times,
                    2e-9 * double(of.N * of.H * of.H * of.F * of.K * of.K * of.C) / (double(ms) / times));
            }
        }
        for (void* memory : {static_cast<void*>(x), static_cast<void*>(y), static_cast<void*>(filters),
                             static_cast<void*>(weight)})
            check(cudaFree(memory), "memory");
    }
}

}  // namespace minicnn

int main() { minicnn::time_all(); }
