// Times the products of csrc/cuda/conv2d in every configuration that may be chosen, one pass of a
// convolution in one precision.  scripts/gpu_products.py builds it, with PASS, TYPE and KIND (Tensor or
// Thread), and runs it on a GPU.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#define product product_by_cost
#include "cuda/core/product.h"
#undef product

namespace minicnn::cuda {

#if PASS == 2
using Tiles = ManyColumns;
#else
using Tiles = ManyRows;
#endif

// Beside the shapes that the router knows, some that it does not.
template <typename... Known, typename... More>
std::tuple<Known..., More...> with_more(std::tuple<Known...>, std::tuple<More...>);
struct More {
    using Tensor = std::tuple<TensorShape<TYPE, 256, 128, 64, 64, 1>>;
    using Thread =
        std::tuple<ThreadShape<float, 16, 16, 8, 8, 2, 2>, ThreadShape<float, 16, 16, 8, 8, 2, 4>,
                   ThreadShape<float, 16, 16, 8, 8, 1, 3>>;
};
using Tried = decltype(with_more(Tiles::KIND<TYPE>(), More::KIND()));

inline int shape_now = 0, splits_now = 1;
inline ProductSize size_now;

template <int i = 0, typename Body>
void in_shape(const Body& body) {
    if constexpr (i < int(std::tuple_size_v<Tried>)) {
        if (i == shape_now) return body(Choice<std::tuple_element_t<i, Tried>>());
        in_shape<i + 1>(body);
    }
}

template <typename, typename A, typename B, typename Output>
void product(const A& a, const B& b, const Output& out, const ProductSize& s) {
    if constexpr (std::is_same_v<typename A::Element, TYPE>) {
        size_now = s;
        in_shape(
            [&](auto shape) { launch_product<typename decltype(shape)::type>(a, b, out, s, splits_now); });
    }
}

}  // namespace minicnn::cuda

#include "cuda/conv2d/products.h"

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

// The arrays are as products read them already.
inline const void *images_now, *filters_now;
template <typename T>
PaddedArray<T> padded_images(const T*, const ConvParams&) {
    return PaddedArray<T>(static_cast<const T*>(images_now));
}
template <typename T>
PaddedArray<T> padded_filters(const Sum<T>*, const ConvParams&) {
    return PaddedArray<T>(static_cast<const T*>(filters_now));
}

}  // namespace minicnn::cuda

#if PASS == 0
#include "cuda/conv2d/product_forward.cu"
#elif PASS == 1
#include "cuda/conv2d/product_input.cu"
#else
#include "cuda/conv2d/product_weight.cu"
#endif

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

template <typename Shape>
std::string described() {
    return std::to_string(Shape::BM) + "x" + std::to_string(Shape::BN) + ", " +
           std::to_string(Shape::threads) + " threads, " + std::to_string(Shape::stages) + " slices, " +
           std::to_string(Shape::blocks) + " blocks";
}

void time_all() {
    const struct {
        std::int64_t N, C, H, F, K;
    } problems[] = {{128, 128, 16, 128, 3}, {128, 256, 8, 256, 3}, {128, 64, 32, 64, 3},
                    {128, 3, 32, 64, 3},    {128, 16, 32, 16, 3},  {128, 256, 16, 64, 1},
                    {256, 3136, 1, 128, 1}};
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "an event");
    check(cudaEventCreate(&end), "an event");
    for (const auto& of : problems) {
        const ConvParams p{of.N, of.C, of.H, of.H,     of.F,     of.K, of.K, of.H,
                           of.H, 1,    1,    of.K / 2, of.K / 2, 1,    1,    1};
        const std::int64_t channels = cuda::padded<TYPE>(of.C), filters_wide = cuda::padded<TYPE>(of.F);
        TYPE* const x = on_device<TYPE>(of.N * of.H * of.H * channels);
        TYPE* const y = on_device<TYPE>(of.N * of.H * of.H * filters_wide);
        TYPE* const filters = on_device<TYPE>(filters_wide * of.K * of.K * channels);
        float* const weight = on_device<float>(of.F * of.K * of.K * of.C);
        cuda::images_now = x;
        cuda::filters_now = filters;
        const auto call = [&] {
#if PASS == 0
            const cuda::ForwardOutput<TYPE> out{y, nullptr, of.F, int(of.F), false};
            cuda::product_forward<TYPE>(x, weight, out, p);
#elif PASS == 1
            cuda::product_input_gradient<TYPE>(y, filters, x, p);
#else
            cuda::product_weight_gradient<TYPE>(y, x, weight, p);
#endif
        };
        for (cuda::shape_now = 0; cuda::shape_now < int(std::tuple_size_v<cuda::Tried>);
             ++cuda::shape_now) {
            std::string tile, planned_tile;
            std::int64_t BM = 1, BN = 1;
            cuda::in_shape([&](auto shape) {
                using Shape = typename decltype(shape)::type;
                tile = described<Shape>(), BM = Shape::BM, BN = Shape::BN;
            });
            cuda::splits_now = 1;
            call();  // it tells size_now
            int planned = 0;
            cuda::with_cheapest(cuda::Tiles::KIND<TYPE>(), cuda::size_now, true,
                                [&](auto shape, int parts) {
                                    planned_tile = described<typename decltype(shape)::type>();
                                    planned = parts;
                                });
            std::vector<int> tried{1, 2, 3, 4, 5, 7, 9, 14, 21, 29, 43, 58, 128, 256, 512};
            if (tile == planned_tile && !std::count(tried.begin(), tried.end(), planned))
                tried.push_back(planned);
            for (const int splits : tried) {
                const bool chosen = tile == planned_tile && splits == planned;
                if (cuda::size_now.K / splits < 4 * cuda::slice_depth<TYPE> && splits > 1) continue;
                const auto tiles =
                    cuda::ceil_div(cuda::size_now.M, BM) * cuda::ceil_div(cuda::size_now.N, BN);
                if (splits > 1 && tiles * splits > 1100 && !chosen) continue;
                cuda::splits_now = splits;
                constexpr int times = 10;
                call();
                check(cudaEventRecord(begin), "an event");
                for (int i = 0; i < times; ++i) call();
                check(cudaEventRecord(end), "an event");
                check(cudaEventSynchronize(end), "a product");
                float ms = 0;
                check(cudaEventElapsedTime(&ms, begin, end), "a time");
                std::printf(
                    "{\"problem\": \"%d to %d, %dx%d, %dx%d, batch %d\", \"tile\": \"%s\", \"parts\": %d, "
                    "\"plan\": \"%s x %d\", \"chosen\": %s, \"ms\": %.5f, \"tflops\": %.1f}\n",
                    int(of.C), int(of.F), int(of.K), int(of.K), int(of.H), int(of.H), int(of.N),
                    tile.c_str(), splits, planned_tile.c_str(), planned, chosen ? "true" : "false",
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
