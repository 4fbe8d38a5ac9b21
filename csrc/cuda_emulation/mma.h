// Replaces the toolkit's header of this name: the TF32 fragments of wmma, 16x16x8.
//
// A fragment is a matrix that the lanes of a warp hold together.  Where each lane holds n elements, lane l
// holds the elements l*n to l*n + n-1 of the matrix, row by row.
#pragma once

#include <type_traits>

#include "cuda_runtime.h"

namespace nvcuda::wmma {

namespace precision {
struct tf32 {};
}  // namespace precision
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K>
constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M;
template <typename Use, int M, int N, int K>
constexpr int columns = std::is_same_v<Use, matrix_a> ? K : N;

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
    static constexpr int height = rows<Use, M, N, K>, width = columns<Use, M, N, K>;
    static constexpr int num_elements = height * width / emulation::warp_size;
    float x[num_elements];
};

// A float rounded to the 10 bits of mantissa that TF32 has: to the nearest, and away from zero in the
// middle.
inline float __float_to_tf32(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7F800000u) != 0x7F800000u) bits = (bits + 0x1000u) & 0xFFFFE000u;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

template <typename Use, int M, int N, int K, typename T>
void fill_fragment(fragment<Use, M, N, K, T>& f, float value) {
    for (float& x : f.x) x = value;
}

template <typename Use, int M, int N, int K, typename Layout>
void load_matrix_sync(fragment<Use, M, N, K, precision::tf32, Layout>& f, const float* from,
                      unsigned stride) {
    using F = std::decay_t<decltype(f)>;
    __syncwarp();
    for (int i = 0; i < F::num_elements; ++i) {
        const int at = emulation::lane() * F::num_elements + i, row = at / F::width, column = at % F::width;
        f.x[i] = std::is_same_v<Layout, row_major> ? from[row * int(stride) + column]
                                                   : from[column * int(stride) + row];
    }
}

template <int M, int N, int K>
void store_matrix_sync(float* to, const fragment<accumulator, M, N, K, float>& f, unsigned stride,
                       layout_t layout) {
    using F = std::decay_t<decltype(f)>;
    for (int i = 0; i < F::num_elements; ++i) {
        const int at = emulation::lane() * F::num_elements + i, row = at / F::width, column = at % F::width;
        to[layout == mem_row_major ? row * int(stride) + column : column * int(stride) + row] = f.x[i];
    }
    __syncwarp();
}

// d = a*b + c.  Every lane reads the operands of all lanes, in their registers.
template <int M, int N, int K, typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& d,
              const fragment<matrix_a, M, N, K, precision::tf32, LayoutA>& a,
              const fragment<matrix_b, M, N, K, precision::tf32, LayoutB>& b,
              const fragment<accumulator, M, N, K, float>& c) {
    using A = std::decay_t<decltype(a)>;
    using B = std::decay_t<decltype(b)>;
    using D = std::decay_t<decltype(d)>;
    const struct {
        const float *a, *b;
    } own{a.x, b.x};
    float whole_a[M * K], whole_b[K * N];
    __syncwarp();
    for (int lane = 0; lane < emulation::warp_size; ++lane) {
        const auto* other = __shfl_sync(0xFFFFFFFFu, &own, lane);
        std::copy_n(other->a, A::num_elements, whole_a + lane * A::num_elements);
        std::copy_n(other->b, B::num_elements, whole_b + lane * B::num_elements);
    }
    __syncwarp();
    for (int i = 0; i < D::num_elements; ++i) {
        const int at = emulation::lane() * D::num_elements + i, row = at / N, column = at % N;
        float sum = c.x[i];
        for (int k = 0; k < K; ++k) {
            sum += __float_to_tf32(whole_a[row * K + k]) * __float_to_tf32(whole_b[k * N + column]);
        }
        d.x[i] = sum;
    }
}

}  // namespace nvcuda::wmma
