// Batches: a thread makes a pixel from the dataset's bytes, its partner's pixel too where images are mixed.
//
// Every product and every sum is rounded by itself, so that all backends give the same bits.

#include "../ops.h"
#include "core/reduce.h"

namespace minicnn {
namespace {

using cuda::plus;
using cuda::times;
using std::int64_t;

__device__ __forceinline__ float within(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

__device__ __forceinline__ bool lies_in(const Box& box, int64_t i, int64_t j) {
    return i >= box.top && i < box.bottom && j >= box.left && j < box.right;
}

// An image of the dataset, seen through its row of the table.
struct Changed {
    const Bytes* images;
    const BatchRow* row;
    const std::uint8_t* image;
    float middle;  // the mean that contrast needs

    __device__ Changed(const Bytes& bytes, const BatchPlan& plan, int64_t n)
        : images(&bytes),
          row(plan.table + n),
          image(bytes.data + plan.rows[n] * bytes.image_step),
          middle(0) {}

    // Steps 1 and 2.
    __device__ float moved(int64_t c, int64_t i, int64_t j) const {
        const Bytes& b = *images;
        i += row->down;
        j += row->right;
        if (i < 0 || i >= b.H || j < 0 || j >= b.W) return 0;
        if (row->flip) j = b.W - 1 - j;
        return image[c * b.channel_step + i * b.row_step + j * b.column_step];
    }

    // Step 3.
    __device__ float sampled(int64_t c, int64_t i, int64_t j) const {
        if (!row->warped) return moved(c, i, j);
        const float x = place(1, float(i), float(j)), y = place(0, float(i), float(j));
        const int left = int(x), top = int(y);
        const float right_share = x - float(left), lower_share = y - float(top);
        // A place is counted from the border of zeros around the image.
        const auto between = [&](int64_t v) {
            const float a = inside(c, v - 1, left - 1), b = inside(c, v - 1, left);
            return plus(a, times(right_share, b - a));
        };
        const float upper = between(top), lower = between(int64_t(top) + 1);
        return plus(upper, times(lower_share, lower - upper));
    }
    // Along axis 0, down, or 1, across.
    __device__ float place(int axis, float i, float j) const {
        const float* m = row->affine[1 - axis];
        const float at = plus(times(m[0], j), plus(times(m[1], i), m[2] + 1));
        return within(at, row->reach[axis] + 1, row->reach[axis + 2] + 1);
    }
    __device__ float inside(int64_t c, int64_t i, int64_t j) const {
        if (i < 0 || i >= images->H || j < 0 || j >= images->W) return 0;
        return moved(c, i, j);
    }

    // Steps 1 to 4.
    __device__ float bright(int64_t c, int64_t i, int64_t j) const {
        const float v = sampled(c, i, j);
        return row->brightness == 1 ? v : within(times(v, row->brightness), 0, 255);
    }

    // Steps 1 to 5.
    __device__ float contrasted(int64_t c, int64_t i, int64_t j) const {
        const float v = bright(c, i, j), factor = row->contrast;
        return factor == 1 ? v : within(plus(times(v, factor), times(1 - factor, middle)), 0, 255);
    }

    // Steps 1 to 9.
    __device__ float value(int64_t c, int64_t i, int64_t j, const float* fill) const {
        if (lies_in(row->cutout, i, j) || lies_in(row->erase, i, j)) return fill[c];
        float v = contrasted(c, i, j);
        if (const float factor = row->saturation; factor != 1 && images->C == 3) {
            const float red = times(red_share, contrasted(0, i, j));
            const float green = times(green_share, contrasted(1, i, j));
            const float grey = plus(plus(red, green), times(blue_share, contrasted(2, i, j)));
            v = within(plus(times(v, factor), times(1 - factor, grey)), 0, 255);
        }
        if (row->step != 1) v = times(floorf(times(v, 1 / row->step)), row->step);
        return row->threshold <= 255 && v >= row->threshold ? 255 - v : v;
    }

    // Works the mean out, with all threads of the block.
    __device__ void find_middle() {
        if (row->contrast == 1) return;
        const int64_t C = images->C, W = images->W, pixels = images->H * W;
        int64_t total = 0;
        for (int64_t p = threadIdx.x; p < pixels; p += cuda::block_threads) {
            const int64_t i = cuda::divide(p, W), j = p - i * W;
            for (int64_t c = 0; c < C; ++c) total += int(rintf(times(bright(c, i, j), pixel_fractions)));
        }
        total = cuda::block_sum(total);
        middle = float(double(total) / (double(pixel_fractions) * double(C * pixels)));
    }
};

// Each image has `tiles` blocks.
template <typename T>
__global__ void __launch_bounds__(cuda::block_threads)
    make_batch_kernel(Bytes images, BatchPlan plan, Normalization<Sum<T>> n, T* y, int64_t tiles) {
    using S = Sum<T>;
    const int64_t number = cuda::divide(blockIdx.x, tiles), tile = blockIdx.x - number * tiles;
    const BatchRow& row = plan.table[number];
    Changed own(images, plan, number), other(images, plan, row.partner);
    const bool patched = row.patch.bottom > row.patch.top && row.patch.right > row.patch.left;
    own.find_middle();
    if (row.share != 1 || patched) other.find_middle();
    const int64_t C = images.C, W = images.W, pixels = images.H * W;
    const S rest = 1 - S(row.share);
    for (int64_t p = tile * cuda::block_threads + threadIdx.x; p < pixels;
         p += tiles * cuda::block_threads) {
        const int64_t i = cuda::divide(p, W), j = p - i * W;
        const bool from_other = lies_in(row.patch, i, j);
        for (int64_t c = 0; c < C; ++c) {
            const auto normalized = [&](const Changed& image) {
                return plus(times(S(image.value(c, i, j, n.fill)), n.scale[c]), n.shift[c]);
            };
            S v = from_other ? normalized(other) : normalized(own);
            if (row.share != 1 && !from_other) v = plus(times(plus(normalized(other), -v), rest), v);
            y[(number * pixels + p) * C + c] = narrow<T>(v);
        }
    }
}

}  // namespace

template <typename T>
void make_batch(const Bytes& images, const BatchPlan& plan, bool, const Normalization<Sum<T>>& n, T* y) {
    // Every block works the mean out again where it is needed, so a thread has several pixels.
    constexpr int64_t pixels_per_thread = 8;
    const int64_t tiles = cuda::ceil_div(images.H * images.W, cuda::block_threads * pixels_per_thread);
    cuda::launch(make_batch_kernel<T>, unsigned(cuda::narrow(plan.B * tiles, "tiles of make_batch")),
                 cuda::block_threads, 0, cuda::current_stream(), images, plan, n, y, tiles);
}

template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<float>&, float*);
template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<double>&, double*);
template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<float>&, bfloat16*);

}  // namespace minicnn
