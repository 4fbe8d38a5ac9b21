// Joining images along their channels.  In channels-last memory each pixel of the result is the pixels of
// its pieces side by side.

#include <cstring>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

template <typename T>
std::int64_t total_channels(const Piece<T>* pieces, std::int64_t count) {
    std::int64_t total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += pieces[k].channels;
    return total;
}

// Calls move(piece, offset, pixel) for the piece's place inside each pixel of the whole.
template <typename T, typename Move>
void for_each_piece(const Piece<T>* pieces, std::int64_t count, std::int64_t pixels, const Move& move) {
    const std::int64_t grain = items_per_piece(total_channels(pieces, count));
    parallel_for(0, pixels, grain, [&](std::int64_t first, std::int64_t last) {
        std::int64_t offset = 0;
        for (std::int64_t k = 0; k < count; offset += pieces[k++].channels) {
            for (std::int64_t i = first; i < last; ++i) move(pieces[k], offset, i);
        }
    });
}

}  // namespace

template <typename T>
void concat_forward(const Piece<const T>* pieces, std::int64_t count, T* y, std::int64_t pixels) {
    const std::int64_t total = total_channels(pieces, count);
    for_each_piece(pieces, count, pixels,
                   [=](const Piece<const T>& p, std::int64_t offset, std::int64_t i) {
                       std::memcpy(y + i * total + offset, p.data + i * p.channels,
                                   std::size_t(p.channels) * sizeof(T));
                   });
}

template <typename T>
void concat_backward(const T* dy, const Piece<T>* pieces, std::int64_t count, std::int64_t pixels) {
    const std::int64_t total = total_channels(pieces, count);
    for_each_piece(pieces, count, pixels, [=](const Piece<T>& p, std::int64_t offset, std::int64_t i) {
        std::memcpy(p.data + i * p.channels, dy + i * total + offset, std::size_t(p.channels) * sizeof(T));
    });
}

template void concat_forward(const Piece<const float>*, std::int64_t, float*, std::int64_t);
template void concat_forward(const Piece<const double>*, std::int64_t, double*, std::int64_t);
template void concat_backward(const float*, const Piece<float>*, std::int64_t, std::int64_t);
template void concat_backward(const double*, const Piece<double>*, std::int64_t, std::int64_t);
template void concat_forward(const Piece<const bfloat16>*, std::int64_t, bfloat16*, std::int64_t);
template void concat_backward(const bfloat16*, const Piece<bfloat16>*, std::int64_t, std::int64_t);

}  // namespace minicnn
