// Joining images along their channels, and cutting them apart: one launch for up to 64 pieces.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

constexpr int most_pieces = 64;

// Pieces as a kernel's argument; first[i] is the channel at which piece i begins, first[count] their end.
template <typename T>
struct Pieces {
    T* data[most_pieces];
    std::int64_t first[most_pieces + 1];
    int count;
};

// Copies between the whole (pixels, total) and the channels [first[0], first[count]) of it.
template <typename T, bool join>
struct Copy {
    Pieces<T> pieces;
    T* whole;
    std::int64_t total;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t width = pieces.first[pieces.count] - pieces.first[0];
        const std::int64_t pixel = cuda::divide(i, width), c = i - pixel * width + pieces.first[0];
        int piece = 0;
        while (c >= pieces.first[piece + 1]) ++piece;
        const std::int64_t begin = pieces.first[piece], channels = pieces.first[piece + 1] - begin;
        T& part = pieces.data[piece][pixel * channels + c - begin];
        T& of_whole = whole[pixel * total + c];
        join ? of_whole = part : part = of_whole;
    }
};

// The kernel reads one side and writes the other; `T` of both is mutable, for one kernel in two directions.
template <bool join, typename T, typename P>
void copy(const Piece<P>* list, std::int64_t count, T* whole, std::int64_t pixels) {
    std::int64_t total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += list[i].channels;
    std::int64_t channel = 0;
    for (std::int64_t i = 0; i < count; i += most_pieces) {
        Copy<T, join> f{{}, whole, total};
        f.pieces.count = int(std::min<std::int64_t>(most_pieces, count - i));
        f.pieces.first[0] = channel;
        for (int k = 0; k < f.pieces.count; ++k) {
            f.pieces.data[k] = const_cast<T*>(list[i + k].data);
            f.pieces.first[k + 1] = channel += list[i + k].channels;
        }
        cuda::for_each<T>(f, pixels * (channel - f.pieces.first[0]), false);
    }
}

}  // namespace

template <typename T>
void concat_forward(const Piece<const T>* pieces, std::int64_t count, T* y, std::int64_t pixels) {
    copy<true>(pieces, count, y, pixels);
}

template <typename T>
void concat_backward(const T* dy, const Piece<T>* pieces, std::int64_t count, std::int64_t pixels) {
    copy<false>(pieces, count, const_cast<T*>(dy), pixels);
}

#define INSTANTIATE(T)                                                                   \
    template void concat_forward(const Piece<const T>*, std::int64_t, T*, std::int64_t); \
    template void concat_backward(const T*, const Piece<T>*, std::int64_t, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn
