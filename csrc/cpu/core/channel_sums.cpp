// Sums over pixels with the channels in vector lanes.  The pixels are cut into a fixed number of chunks,
// whose sums are added in order.
#include "channel_sums.h"

#include "batch_split.h"
#include "parallel.h"
#include "scratch.h"
#include "simd.h"

namespace minicnn {
namespace {

// sum (F) = the sum of the pixels [first, last) of dy, without what the mask (or nullptr) leaves out.
template <typename T>
void sum_pixels(const T* dy, const T* mask, T* sum, int64_t first, int64_t last, int64_t F) {
    constexpr int L = lanes<T>;
    int64_t f = 0;
    constexpr int together = 4;  // so many vectors, so that long stretches of memory are read
    for (; f + together * L <= F; f += together * L) {
        Vec<T, L> acc[together]{};
        for (int64_t at = first * F + f; at < last * F; at += F) {
            unroll<together>([&](auto v) __attribute__((always_inline)) {
                const Vec<T, L> value = load<L>(dy + at + v * L);
                acc[v] += mask ? (load<L>(mask + at + v * L) <= 0 ? Vec<T, L>{} : value) : value;
            });
        }
        for (int v = 0; v < together; ++v) store(sum + f + v * L, acc[v]);
    }
    for (; f + L <= F; f += L) {
        Vec<T, L> acc{};
        for (int64_t at = first * F + f; at < last * F; at += F) {
            acc += mask ? (load<L>(mask + at) <= 0 ? Vec<T, L>{} : load<L>(dy + at)) : load<L>(dy + at);
        }
        store(sum + f, acc);
    }
    for (; f < F; ++f) {
        T acc = 0;
        for (int64_t at = first * F + f; at < last * F; at += F) {
            const T choice[2] = {dy[at], T(0)};  // an index, because a branch on it could not be predicted
            acc += choice[mask && mask[at] <= 0];
        }
        sum[f] = acc;
    }
}

}  // namespace

template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, int64_t pixels, int64_t F) {
    const BatchSplit split(pixels / 256, 1, F * static_cast<int64_t>(sizeof(T)));
    Scratch scratch;
    T* partials = scratch.take<T>(split.chunks * F);
    parallel_for(0, split.chunks, grain_for(static_cast<double>(pixels * F) / split.chunks),
                 [&](int64_t first, int64_t last) {
                     for (int64_t chunk = first; chunk < last; ++chunk) {
                         T* sum = partials + chunk * F;
                         std::fill_n(sum, F, T(0));
                         sum_pixels(dy, relu_y, sum, pixels * chunk / split.chunks,
                                    pixels * (chunk + 1) / split.chunks, F);
                     }
                 });
    std::copy_n(partials, F, db);
    for (int64_t chunk = 1; chunk < split.chunks; ++chunk) {
        for (int64_t f = 0; f < F; ++f) db[f] += partials[chunk * F + f];
    }
}

template void sum_channels(const float*, const float*, float*, int64_t, int64_t);
template void sum_channels(const double*, const double*, double*, int64_t, int64_t);

}  // namespace minicnn
