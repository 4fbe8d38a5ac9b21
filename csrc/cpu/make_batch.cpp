// Batches: a thread makes an image band by band, in memory that stays in its cache.
//
// Every product and every sum is rounded by itself, so that all backends give the same bits: this file is
// compiled without fused multiply-adds.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "../ops.h"
#include "core/parallel.h"
#include "core/scratch.h"
#include "core/simd.h"

namespace minicnn {
namespace {

using std::int32_t;
using std::int64_t;

constexpr int64_t band_values = 4096;  // floats of a band, which then stays in the L1 cache
constexpr int L = lanes<float>;
using Floats = Vec<float, L>;
using Integers = Vec<int32_t, L>;
constexpr int chunk = 16;
using Chunk = Vec<std::uint8_t, chunk>;

int64_t whole_vectors(int64_t count) { return (count + L - 1) / L * L; }

// ---- steps 1 and 2: the rows of the old image, where the new one has them ------------------------------

void copy_bytes(const std::uint8_t* from, std::uint8_t* to, int64_t count) {
    if (count < chunk) {
        for (int64_t j = 0; j < count; ++j) to[j] = from[j];
        return;
    }
    // The last chunk may overlap the one before.
    for (int64_t j = 0; j < count - chunk; j += chunk) store(to + j, load<chunk>(from + j));
    store(to + count - chunk, load<chunk>(from + count - chunk));
}

// to[j] = end[-1 - j]
void copy_reversed(const std::uint8_t* end, std::uint8_t* to, int64_t count) {
    if (count < chunk) {
        for (int64_t j = 0; j < count; ++j) to[j] = end[-1 - j];
        return;
    }
    const auto reversed = [](const std::uint8_t* from) {
        const auto bytes = load<chunk>(from);
#if defined(__clang__)
        return __builtin_shufflevector(bytes, bytes, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#else
        return __builtin_shuffle(bytes, Chunk{15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0});
#endif
    };
    for (int64_t j = 0; j < count - chunk; j += chunk) store(to + j, reversed(end - chunk - j));
    store(to + count - chunk, reversed(end - count));
}

class Moved {
  public:
    Moved(const Bytes& images, const BatchRow& r, const std::uint8_t* image)
        : images_(images), image_(image), down_(r.down), right_(r.right), flip_(r.flip != 0) {
        first_ = std::clamp<int64_t>(-right_, 0, images.W);
        last_ = std::clamp<int64_t>(images.W - right_, first_, images.W);
    }

    void copy_row(int64_t c, int64_t i, std::uint8_t* to) const {
        const int64_t W = images_.W, step = images_.column_step, source = i + down_, count = last_ - first_;
        if (source < 0 || source >= images_.H || count == 0) {
            std::memset(to, 0, std::size_t(W));
            return;
        }
        const std::uint8_t* const row = image_ + c * images_.channel_step + source * images_.row_step;
        const int64_t column = first_ + right_;  // that of the first pixel to copy; from the end if flipped
        std::fill(to, to + first_, std::uint8_t(0));
        std::fill(to + last_, to + W, std::uint8_t(0));
        if (step == 1 && flip_) return copy_reversed(row + W - column, to + first_, count);
        if (step == 1) return copy_bytes(row + column, to + first_, count);
        for (int64_t j = 0; j < count; ++j) {
            to[first_ + j] = row[(flip_ ? W - 1 - column - j : column + j) * step];
        }
    }

    // Rows [first, first + rows) of channel c, side by side: where they lie in the dataset if that is how
    // they lie there, else copied to `room`.
    const std::uint8_t* plane(int64_t c, int64_t first, int64_t rows, std::uint8_t* room) const {
        const Bytes& b = images_;
        if (!flip_ && down_ == 0 && right_ == 0 && b.column_step == 1 && b.row_step == b.W) {
            return image_ + c * b.channel_step + first * b.W;
        }
        for (int64_t i = 0; i < rows; ++i) copy_row(c, first + i, room + i * b.W);
        return room;
    }

  private:
    const Bytes& images_;
    const std::uint8_t* image_;
    int64_t down_, right_, first_, last_;  // pixels [first, last) of a row come from the image
    bool flip_;
};

// ---- step 3: the warp --------------------------------------------------------------------------------

// The image with a border of zeros, each number holding a pixel and its neighbours to the right, below, and
// below to the right, a byte each: one load reads all that a place lies between.
class Quads {
  public:
    Quads(Scratch& scratch, const Bytes& images)
        : C_(images.C),
          H_(images.H),
          W_(images.W),
          pitch_(whole_vectors(W_ + 2)),
          quads_(scratch.take<std::uint32_t>(C_ * (H_ + 2) * pitch_)),
          bytes_(scratch.take<std::uint8_t>(2 * (pitch_ + L))),
          at_(scratch.take<int32_t>(pitch_)),
          right_share_(scratch.take<float>(pitch_)),
          lower_share_(scratch.take<float>(pitch_)) {}

    void fill(const Moved& moved) {
        for (int64_t c = 0; c < C_; ++c) {
            std::uint8_t *upper = bytes_, *lower = bytes_ + pitch_ + L;
            std::memset(bytes_, 0, std::size_t(2 * (pitch_ + L)));
            for (int64_t i = 0; i < H_ + 2; ++i) {
                if (i < H_) {
                    moved.copy_row(c, i, lower + 1);
                } else {
                    std::memset(lower + 1, 0, std::size_t(W_));
                }
                std::uint32_t* const to = quads_ + (c * (H_ + 2) + i) * pitch_;
                const std::uint8_t *const a = upper, *const b = lower;
#pragma GCC ivdep
                for (int64_t j = 0; j < pitch_; ++j) {
                    to[j] = std::uint32_t(a[j]) | std::uint32_t(a[j + 1]) << 8 | std::uint32_t(b[j]) << 16 |
                            std::uint32_t(b[j + 1]) << 24;
                }
                std::swap(upper, lower);
            }
        }
    }

    // Row i of the new image: channel c goes to `to` + c * plane.  Up to L - 1 floats after it are
    // overwritten.
    void sample_row(const BatchRow& r, int64_t i, float* to, int64_t plane) const {
        find_places(r, float(i));
        for (int64_t c = 0; c < C_; ++c) {
            const std::uint32_t* const quads = quads_ + c * (H_ + 2) * pitch_;
            float* const row = to + c * plane;
            const int32_t* const at = at_;
            const float *const right_share = right_share_, *const lower_share = lower_share_;
            const int64_t count = whole_vectors(W_);
#pragma GCC ivdep
            for (int64_t j = 0; j < count; ++j) {
                const auto quad = static_cast<int32_t>(quads[at[j]]);
                const auto a = float(quad & 255), b = float(quad >> 8 & 255);
                const auto d = float(quad >> 16 & 255), e = float(quad >> 24 & 255);
                const float upper = a + right_share[j] * (b - a), lower = d + right_share[j] * (e - d);
                row[j] = upper + lower_share[j] * (lower - upper);
            }
        }
    }

  private:
    // Where the pixels of a row lie, counted from the corner of the border.
    void find_places(const BatchRow& r, float i) const {
        const float (&m)[2][3] = r.affine;
        const float x_of_row = m[0][1] * i + (m[0][2] + 1), y_of_row = m[1][1] * i + (m[1][2] + 1);
        Floats j;
        for (int l = 0; l < L; ++l) j[l] = float(l);
        for (int64_t first = 0; first < W_; first += L, j += float(L)) {
            const Floats x = within(m[0][0] * j + x_of_row, r.reach[1] + 1, r.reach[3] + 1);
            const Floats y = within(m[1][0] * j + y_of_row, r.reach[0] + 1, r.reach[2] + 1);
            const Integers column = __builtin_convertvector(x, Integers);
            const Integers row = __builtin_convertvector(y, Integers);
            store(right_share_ + first, x - __builtin_convertvector(column, Floats));
            store(lower_share_ + first, y - __builtin_convertvector(row, Floats));
            store(at_ + first, row * int32_t(pitch_) + column);
        }
    }
    // A place without a number becomes `low`.
    static Floats within(Floats place, float low, float high) {
        place = place > low ? place : Floats{} + low;
        return place < high ? place : Floats{} + high;
    }

    int64_t C_, H_, W_, pitch_;
    std::uint32_t* quads_;
    std::uint8_t* bytes_;
    int32_t* at_;
    float *right_share_, *lower_share_;
};

// ---- steps 4 to 8, on a band of rows: values[c * plane + i], i < count ---------------------------------

struct Band {
    float* values;
    int64_t C, plane, count;
};

float within_bytes(float v) {
    v = v > 0 ? v : 0;
    return v < 255 ? v : 255;
}

void multiply(const Band& band, float factor, float plus) {
    for (int64_t c = 0; c < band.C; ++c) {
        float* const v = band.values + c * band.plane;
        for (int64_t i = 0; i < band.count; ++i) v[i] = within_bytes(v[i] * factor + plus);
    }
}

// The mean of the whole image, which the band is.
float mean_of(const Band& band) {
    int64_t total = 0;
    for (int64_t c = 0; c < band.C; ++c) {
        const float* const v = band.values + c * band.plane;
        for (int64_t i = 0; i < band.count; ++i) {
            total += static_cast<int32_t>(std::nearbyint(v[i] * pixel_fractions));
        }
    }
    return float(double(total) / (double(pixel_fractions) * double(band.C * band.count)));
}

void saturate(const Band& band, float factor) {
    float *const red = band.values, *const green = red + band.plane, *const blue = green + band.plane;
    const float rest = 1 - factor;
    for (int64_t i = 0; i < band.count; ++i) {
        const float grey = red_share * red[i] + green_share * green[i] + blue_share * blue[i];
        const float plus = rest * grey;
        red[i] = within_bytes(red[i] * factor + plus);
        green[i] = within_bytes(green[i] * factor + plus);
        blue[i] = within_bytes(blue[i] * factor + plus);
    }
}

bool recolours(const BatchRow& r) {
    return r.brightness != 1 || r.contrast != 1 || r.saturation != 1 || r.step != 1 || r.threshold <= 255;
}

void recolour(const Band& band, const BatchRow& r) {
    if (r.brightness != 1) multiply(band, r.brightness, 0);
    if (r.contrast != 1) multiply(band, r.contrast, (1 - r.contrast) * mean_of(band));
    if (r.saturation != 1 && band.C == 3) saturate(band, r.saturation);
    for (int64_t c = 0; c < band.C; ++c) {
        float* const v = band.values + c * band.plane;
        if (r.step != 1) {
            const float steps = 1 / r.step;
            for (int64_t i = 0; i < band.count; ++i) v[i] = std::floor(v[i] * steps) * r.step;
        }
        if (r.threshold <= 255) {
            for (int64_t i = 0; i < band.count; ++i) v[i] = v[i] >= r.threshold ? 255 - v[i] : v[i];
        }
    }
}

// ---- steps 9 and 10 ------------------------------------------------------------------------------------

// From a plane a channel to channels side by side.
template <typename T, int channels, typename Value>
void normalize(const Value* const* planes, int64_t count, const Normalization<T>& n, T* y) {
    T scale[channels], shift[channels];
    const Value* plane[channels];
    for (int c = 0; c < channels; ++c) scale[c] = n.scale[c], shift[c] = n.shift[c], plane[c] = planes[c];
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
        for (int c = 0; c < channels; ++c) y[i * channels + c] = T(plane[c][i]) * scale[c] + shift[c];
    }
}

template <typename T, typename Value>
void normalize(const Value* const* planes, int64_t C, int64_t count, const Normalization<T>& n, T* y) {
    if (C == 1) return normalize<T, 1>(planes, count, n, y);
    if (C == 3) return normalize<T, 3>(planes, count, n, y);
    for (int64_t c = 0; c < C; ++c) {
        for (int64_t i = 0; i < count; ++i) y[i * C + c] = T(planes[c][i]) * n.scale[c] + n.shift[c];
    }
}

// The part of a box that lies in the image.
Box in_image(const Box& box, const Bytes& images) {
    const auto H = int32_t(images.H), W = int32_t(images.W);
    const int32_t top = std::clamp(box.top, 0, H), left = std::clamp(box.left, 0, W);
    return {top, left, std::clamp(box.bottom, top, H), std::clamp(box.right, left, W)};
}

// Step 9, after step 10: the colour is normalised instead.
template <typename T>
void fill(const Box& given, const Bytes& images, const Normalization<T>& n, T* y) {
    const Box box = in_image(given, images);
    const int64_t C = images.C;
    for (int64_t i = box.top; i < box.bottom; ++i) {
        T* const row = y + (i * images.W + box.left) * C;
        for (int64_t c = 0; c < C; ++c) {
            const T colour = T(n.fill[c]) * n.scale[c] + n.shift[c];
            for (int64_t j = 0; j < box.right - box.left; ++j) row[j * C + c] = colour;
        }
    }
}

// ---- images ------------------------------------------------------------------------------------------

// Steps 1 to 10 of one image.
template <typename T>
void make_image(const Bytes& images, const BatchRow& r, int64_t number, const Normalization<T>& n, T* y) {
    const int64_t C = images.C, H = images.H, W = images.W;
    const bool floats = r.warped || recolours(r);
    // The mean, which contrast needs, is known when all rows are there.
    const int64_t most = r.contrast != 1 ? H : std::clamp<int64_t>(band_values / (C * W), 1, H);
    const int64_t plane = whole_vectors(most * W) + L;
    Scratch scratch;
    auto* const room = scratch.take<std::uint8_t>(C * most * W);
    auto* const values = scratch.take<float>(floats ? C * plane : 0);
    const auto** const bytes = scratch.take<const std::uint8_t*>(C);
    const auto** const planes = scratch.take<const float*>(C);
    const Moved moved(images, r, images.data + number * images.image_step);
    std::optional<Quads> quads;
    if (r.warped) quads.emplace(scratch, images).fill(moved);
    for (int64_t first = 0; first < H; first += most) {
        const int64_t rows = std::min(most, H - first), count = rows * W;
        for (int64_t i = 0; quads && i < rows; ++i) quads->sample_row(r, first + i, values + i * W, plane);
        for (int64_t c = 0; c < C; ++c) {
            planes[c] = values + c * plane;
            if (quads) continue;
            bytes[c] = moved.plane(c, first, rows, room + c * most * W);
            for (int64_t i = 0; floats && i < count; ++i) values[c * plane + i] = bytes[c][i];
        }
        T* const to = y + first * W * C;
        if (floats) {
            recolour({values, C, plane, count}, r);
            normalize(planes, C, count, n, to);
        } else {
            normalize(bytes, C, count, n, to);
        }
    }
    fill(r.cutout, images, n, y);
    fill(r.erase, images, n, y);
}

// Steps 11 and 12: y = a, blended with its partner b, and with a patch of it.
template <typename T>
void mix(const BatchRow& r, const T* a, const T* b, T* y, const Bytes& images) {
    const int64_t size = images.C * images.H * images.W;
    if (r.share != 1) {
        const T rest = 1 - T(r.share);
        for (int64_t i = 0; i < size; ++i) y[i] = (b[i] - a[i]) * rest + a[i];
    } else {
        std::copy(a, a + size, y);
    }
    const Box box = in_image(r.patch, images);
    for (int64_t i = box.top; i < box.bottom; ++i) {
        const int64_t left = (i * images.W + box.left) * images.C,
                      right = (i * images.W + box.right) * images.C;
        std::copy(b + left, b + right, y + left);
    }
}

// Lets `write` write `count` values to y; where y is bfloat16, to a place from which they are rounded.
template <typename T, typename Write>
void stored(T* y, int64_t count, const Write& write) {
    if constexpr (std::is_same_v<T, Sum<T>>) {
        write(y);
    } else {
        Scratch scratch;
        Sum<T>* const values = scratch.take<Sum<T>>(count);
        write(values);
        for (int64_t i = 0; i < count; ++i) y[i] = narrow<T>(values[i]);
    }
}

}  // namespace

template <typename T>
void make_batch(const Bytes& images, const BatchPlan& plan, bool mixes,
                const Normalization<Sum<T>>& normalization, T* y) {
    using S = Sum<T>;
    const int64_t size = images.C * images.H * images.W;
    const int64_t grain = std::max<int64_t>(1, band_values / size);
    const auto each_image = [&](const auto& body) {
        parallel_for<Denormals::kept>(0, plan.B, grain, [&](int64_t first, int64_t last) {
            for (int64_t n = first; n < last; ++n) body(n);
        });
    };
    const auto make = [&](int64_t n, S* to) {
        make_image(images, plan.table[n], plan.rows[n], normalization, to);
    };
    if (!mixes) {
        return each_image([&](int64_t n) { stored(y + n * size, size, [&](S* to) { make(n, to); }); });
    }
    Scratch scratch;
    S* const made = scratch.take<S>(plan.B * size);
    each_image([&](int64_t n) { make(n, made + n * size); });
    each_image([&](int64_t n) {
        const BatchRow& r = plan.table[n];
        stored(y + n * size, size,
               [&](S* to) { mix(r, made + n * size, made + r.partner * size, to, images); });
    });
}

template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<float>&, float*);
template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<double>&, double*);
template void make_batch(const Bytes&, const BatchPlan&, bool, const Normalization<float>&, bfloat16*);

}  // namespace minicnn
