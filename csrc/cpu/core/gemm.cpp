// Matrix products through the register tiles.  b is packed in blocks of columns, or read in place where
// its rows are contiguous; a task is one block times a group of rows of a.
// Fused: bias and ReLU.
#include "gemm.h"

#include "elementwise.h"
#include "packing.h"
#include "transpose.h"

namespace minicnn {
namespace {

// Packs the columns [j, j + count) of b, with zeros in the lanes up to `width`.
template <typename T>
void pack_columns(const Gemm<T>& m, int64_t j, int64_t count, int width, T* to) {
    const T* from = m.b + j * m.b_col;
    if (m.b_depth == 1) return pack_block(from, m.b_col, count, m.depth, to, width);
    for (int64_t k = 0; k < m.depth; ++k, to += width, from += m.b_depth) {
        for (int64_t l = 0; l < count; ++l) to[l] = from[l * m.b_col];
        for (int64_t l = count; l < width; ++l) to[l] = T(0);
    }
}

template <typename T>
constexpr int wide = block_lanes<T>(two_vectors);

// Whether the block of columns from j on is read in place: its rows are contiguous and fill whole vectors.
template <typename T>
bool in_place(const Gemm<T>& m, int64_t j) {
    return m.b_col == 1 && m.cols - j >= block_lanes<T>(block_width<T>(m.cols - j));
}

}  // namespace

template <typename T>
PackedOperand<T> pack_operand(const Gemm<T>& m, Memory& memory) {
    const int64_t blocks = (m.cols + wide<T> - 1) / wide<T>, padded = padded_lanes<T>(m.cols);
    T* packed = memory.take<T>(padded * (m.depth + 1));
    T* bias = packed + padded * m.depth;
    for (int64_t j = 0; j < padded; ++j) bias[j] = m.bias && j < m.cols ? m.bias[j] : T(0);
    const int64_t first_packed = m.b_col == 1 ? blocks - 1 : 0;  // only the last block may be narrower
    parallel_for(first_packed, blocks, std::max<int64_t>(1, 65536 / (wide<T> * m.depth + 1)),
                 [&](int64_t first, int64_t last) {
                     for (int64_t j = first * wide<T>; j < std::min(last * wide<T>, m.cols); j += wide<T>) {
                         if (in_place(m, j)) continue;
                         const int width = block_lanes<T>(block_width<T>(m.cols - j));
                         const int64_t count = std::min<int64_t>(width, m.cols - j);
                         pack_columns(m, j, count, width, packed + j * m.depth);
                     }
                 });
    return {packed, bias};
}

template <typename T>
void gemm(const Gemm<T>& m) {
    if (m.rows * m.cols == 0) return;
    Scratch scratch;
    gemm(m, pack_operand(m, scratch));
}

template <typename T>
void gemm(const Gemm<T>& m, const PackedOperand<T>& packed) {
    if (m.rows * m.cols == 0) return;
    const int64_t blocks = (m.cols + wide<T> - 1) / wide<T>;
    // The rows are cut into groups where there are few blocks, so that there are tasks for many threads.
    const int64_t groups =
        std::max<int64_t>(1, std::min<int64_t>((m.rows + 27) / 28, (64 + blocks - 1) / blocks));
    const double flops =
        2.0 * static_cast<double>(m.rows) * wide<T> * m.depth / static_cast<double>(groups);
    parallel_for(0, blocks * groups, grain_for(flops), [&](int64_t first, int64_t last) {
        // Each thread makes its own list: fetching one from another core's cache would take longer.
        Scratch own;
        int64_t* offset = own.take<int64_t>(m.depth);
        for (int64_t k = 0; k < m.depth; ++k) offset[k] = k * m.a_depth;
        for (int64_t task = first; task < last; ++task) {
            const int64_t j = task / groups * wide<T>, group = task % groups;
            const int64_t i0 = m.rows * group / groups, i1 = m.rows * (group + 1) / groups;
            const BlockWidth width = block_width<T>(m.cols - j);
            const bool direct = in_place(m, j);
            TileInput<T> in{nullptr,
                            0,
                            m.a_row,
                            offset,
                            m.depth,
                            direct ? m.b + j : packed.blocks + j * m.depth,
                            direct ? m.b_depth : block_lanes<T>(width),
                            packed.bias + j};
            const int count = static_cast<int>(std::min<int64_t>(block_lanes<T>(width), m.cols - j));
            for_each_tile(tile_kernels<T>(width).plain, i1 - i0, plain_cols(width == two_vectors ? 2 : 1),
                          1, [&](TileKernel<T> kernel, int64_t i) {
                              in.a = m.a + (i0 + i) * m.a_row;
                              kernel(in, {m.c + (i0 + i) * m.cols + j, 0, m.cols, count, m.relu, nullptr});
                          });
        }
    });
}

template <typename T>
void dot_products(const T* a, const T* b, const T* bias, T* c, int64_t rows, int64_t cols, int64_t depth,
                  bool relu) {
    constexpr int L = lanes<T>, outputs = 8;
    const int64_t blocks = (cols + outputs - 1) / outputs;
    parallel_for(0, rows * blocks, grain_for(8.0 * outputs * depth), [&](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; ++task) {
            const int64_t i = task / blocks, j = task % blocks * outputs;
            const T *x = a + i * depth, *w[outputs];
            for (int o = 0; o < outputs; ++o) w[o] = b + std::min(j + o, cols - 1) * depth;
            Vec<T, L> acc[outputs]{};
            int64_t k = 0;
            for (; k + L <= depth; k += L) {
                const Vec<T, L> xv = load<L>(x + k);
                unroll<outputs>([&](auto o)
                                    __attribute__((always_inline)) { acc[o] += xv * load<L>(w[o] + k); });
            }
            for (int o = 0; o < outputs && j + o < cols; ++o) {
                T sum = bias ? bias[j + o] : T(0);
                for (int64_t rest = k; rest < depth; ++rest) sum += x[rest] * w[o][rest];
                T lane[L];
                store(lane, acc[o]);
                for (int half = L / 2; half > 0; half /= 2) {
                    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
                }
                sum += lane[0];
                c[i * cols + j + o] = relu && sum <= 0 ? T(0) : sum;
            }
        }
    });
}

template <typename T>
const T* masked_gradient(const T* dy, const T* relu_y, int64_t size, Scratch& scratch) {
    if (!relu_y) return dy;
    T* masked = scratch.take<T>(size);
    parallel_for(0, size, 16384, [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) masked[i] = relu_gradient(relu_y[i], dy[i]);
    });
    return masked;
}

#define INSTANTIATE(T)                                                        \
    template PackedOperand<T> pack_operand(const Gemm<T>&, Memory&);          \
    template void gemm(const Gemm<T>&);                                       \
    template void gemm(const Gemm<T>&, const PackedOperand<T>&);              \
    template const T* masked_gradient(const T*, const T*, int64_t, Scratch&); \
    template void dot_products(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
