// How a product is computed: the tiles that there are for each type, and which of them a product gets.
#pragma once

#include <cmath>
#include <iterator>
#include <tuple>

#include "tensor_sums.h"
#include "tf32.h"
#include "thread_sums.h"

namespace minicnn::cuda {

struct ProductSize {
    std::int64_t M, K;
    int N;
    int groups;                    // independent products
    int tile_rows = 0;             // how many rows of out a block computes: those of its tile, or fewer
    int splits = 1;                // into how many parts each sum over k is cut
    std::int64_t split_depth = 0;  // the k of a part
};

// ---- configurations ----------------------------------------------------------------------------------

// What the costs below are reckoned for: an H200.
constexpr int multiprocessors = 132;
constexpr double cycles = 1.75e3;  // in a microsecond
constexpr double copied = 45e3;    // bytes that a multiprocessor copies in a microsecond

// A tile of BM x BN by tensor cores, of which each warp computes HM x HN.  `blocks` of them share a
// multiprocessor.
template <typename T_, int BM_, int BN_, int HM, int HN, int blocks_>
struct TensorShape {
    using T = T_;
    static constexpr int BM = BM_, BN = BN_, blocks = blocks_, stages = 4, most_splits = 128;
    static constexpr int threads = BM / HM * (BN / HN) * warp_lanes, resident = blocks;
    template <typename Operand, int L>
    using Tile = cuda::Tile<Operand, L, true>;
    template <typename A, typename B>
    using Sums = WarpSums<A, B, BM, BN, HM, HN>;

    // What a slice costs, in microseconds on paper.
    static constexpr double of_slice =
        double(BM) * BN * slice_depth<T> / (cycles * (sizeof(T) == 2 ? 2000 : 1000)) +
        double(BM + BN) * slice_bytes / copied / 2;
};

// A tile by multiply-adds: X * Y threads compute TM x TN sums each.
template <typename T_, int X, int Y, int TM, int TN, int blocks_, int stages_>
struct ThreadShape {
    using T = T_;
    static constexpr int BM = Y * TM, BN = X * TN, threads = X * Y, blocks = blocks_, stages = stages_;
    static constexpr int most_splits = 512;
    // For how many blocks the compiler leaves registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    static constexpr int resident = TM * TN < 64 ? blocks : 1;  // it needs more of them here
#else
    static constexpr int resident = blocks;
#endif
    template <typename Operand, int L>
    using Tile = cuda::Tile<Operand, L, false>;
    template <typename A, typename B>
    using Sums = ThreadSums<A, B, X, Y, TM, TN>;

    static constexpr double of_slice =
        (double(BM) * BN * slice_depth<T> / (sizeof(T) == 4 ? 128 : 64) +              // multiply-adds
         double(threads / warp_lanes) * (slice_depth<T> / full_width<T>)*(TM + TN)) /  // loads, half hidden
            cycles +
        double(BM + BN) * slice_bytes / copied / 2;
};

template <typename T>
using Large = TensorShape<T, 128, 128, 64, sizeof(T) == 2 ? 32 : 64, 2>;
template <typename T>
using Small = TensorShape<T, 64, 64, 32, 32, 4>;

// The tiles for a product with many rows.
struct ManyRows {
    template <typename T>
    using Tensor = std::tuple<Large<T>, TensorShape<T, 128, 64, 64, 32, 3>, Small<T>,
                              TensorShape<T, 128, 32, 32, 32, 4>>;
    template <typename T>
    using Thread = std::conditional_t<
        sizeof(T) == 4,
        std::tuple<ThreadShape<T, 16, 16, 8, 8, 2, 3>, ThreadShape<T, 16, 16, 8, 4, 2, 3>,
                   ThreadShape<T, 8, 16, 8, 4, 4, 3>, ThreadShape<T, 4, 32, 8, 4, 3, 3>>,
        std::tuple<ThreadShape<T, 16, 16, 4, 4, 2, 3>, ThreadShape<T, 4, 32, 4, 4, 2, 3>>>;
};

// Those for one with many columns.
struct ManyColumns {
    template <typename T>
    using Tensor = std::tuple<Large<T>, TensorShape<T, 64, 128, 64, 32, 3>, Small<T>>;
    template <typename T>
    using Thread = std::conditional_t<
        sizeof(T) == 4,
        std::tuple<ThreadShape<T, 16, 16, 8, 8, 2, 3>, ThreadShape<T, 16, 16, 4, 8, 2, 3>,
                   ThreadShape<T, 8, 16, 4, 8, 4, 3>, ThreadShape<T, 8, 8, 4, 8, 8, 3>,
                   ThreadShape<T, 32, 4, 4, 8, 4, 3>>,
        std::tuple<ThreadShape<T, 16, 16, 4, 4, 2, 3>, ThreadShape<T, 32, 4, 4, 4, 2, 3>>>;
};

// ---- the choice --------------------------------------------------------------------------------------

// What a product costs in a configuration, in microseconds on paper.
struct Plan {
    int splits;
    double cost;
};

template <typename Shape>
Plan plan(const ProductSize& s, bool may_split) {
    constexpr double begun = 2.0, added = 3.0;  // microseconds: of a block, of a second kernel
    constexpr double summed = 1.5e6;            // numbers of parts a microsecond
    const double tiles = double(ceil_div(s.M, Shape::BM) * ceil_div(s.N, Shape::BN) * s.groups);
    const std::int64_t slices = larger<std::int64_t>(ceil_div(s.K, slice_depth<typename Shape::T>), 1);
    Plan best{1, 0};
    const std::int64_t blocks_along_z = 65535 / s.groups;
    const auto most =
        may_split ? std::clamp<std::int64_t>(smaller(slices / 4, blocks_along_z), 1, Shape::most_splits)
                  : 1;
    for (int splits = 1; splits <= most; splits += splits <= 128 ? 1 : 16) {
        const double turns = std::ceil(tiles * splits / multiprocessors);
        const double beside = std::min(turns, double(Shape::blocks));
        // One block alone waits for its copies and barriers; others beside it use the time.
        const double share = (beside + 1) / (Shape::blocks + 1);
        double cost = turns * (double(ceil_div(slices, splits)) * Shape::of_slice / share + begun / beside);
        if (splits > 1) cost += added + double(s.M) * s.N * s.groups * (splits + 1) / summed;
        if (splits == 1 || cost < best.cost) best = {splits, cost};
    }
    return best;
}

// A type that can be passed as an argument.
template <typename Type>
struct Choice {
    using type = Type;
};

// Calls body(Choice<Shape>(), splits) with the cheapest of the shapes.
template <typename... Shapes, typename Body>
void with_cheapest(std::tuple<Shapes...>, const ProductSize& s, bool may_split, const Body& body) {
    const Plan plans[] = {plan<Shapes>(s, may_split)...};
    const auto cheaper = [](const Plan& a, const Plan& b) { return a.cost < b.cost; };
    const auto best = std::min_element(std::begin(plans), std::end(plans), cheaper) - plans;
    int number = 0;
    ((number++ == best ? body(Choice<Shapes>(), plans[best].splits) : void()), ...);
}

// The one place that chooses how a product is computed, from its sizes, the type of its factors, and
// whether they may be rounded to TF32: no time is measured, so that the bits stay.
template <typename Tiles, typename T, typename Body>
void with_shape(const ProductSize& s, bool may_split, const Body& body) {
    if constexpr (!std::is_same_v<T, double>) {
        if (uses_tensor_cores<T>())
            return with_cheapest(typename Tiles::template Tensor<T>(), s, may_split, body);
    }
    if constexpr (!std::is_same_v<T, bfloat16>)
        with_cheapest(typename Tiles::template Thread<T>(), s, may_split, body);
}

}  // namespace minicnn::cuda
