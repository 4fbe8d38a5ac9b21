// Convolution 3x3 with padding 1, ReLU, max-pool 2x2.  Images (N,H,W,C), weights (3,3,C,F), bias (F).
#include <algorithm>
#include <cstdint>
#include <vector>

#include "task.h"

namespace {

struct Shape {
    int N, H, W, C, F;
};

// Adds the products of the window around pixel (i, j) of one image to sums[F].
[[maybe_unused]] void add_window(const float* image, const float* weight, int i, int j, const Shape& s,
                                 float* sums) {
    for (int u = 0; u < 3; ++u) {
        for (int v = 0; v < 3; ++v) {
            const int row = i + u - 1, column = j + v - 1;
            if (row < 0 || row >= s.H || column < 0 || column >= s.W) continue;
            // BEGIN SOLUTION
            const float* pixel = image + (row * s.W + column) * s.C;
            const float* weights = weight + (u * 3 + v) * s.C * s.F;
            for (int c = 0; c < s.C; ++c) {
                for (int f = 0; f < s.F; ++f) sums[f] += pixel[c] * weights[c * s.F + f];
            }
            // END SOLUTION
        }
    }
}

}  // namespace

TASK convolution(const float* x, const float* weight, const float* bias, float* map, int N, int H, int W,
                 int C, int F) {
    return task::run([&] {
        [[maybe_unused]] const Shape s{N, H, W, C, F};
        // BEGIN SOLUTION
        for (int n = 0; n < N; ++n) {
            for (int i = 0; i < H; ++i) {
                for (int j = 0; j < W; ++j, map += F) {
                    std::copy(bias, bias + F, map);
                    add_window(x + n * H * W * C, weight, i, j, s, map);
                }
            }
        }
        // END SOLUTION
    });
}

TASK fused(const float* x, const float* weight, const float* bias, float* y, std::uint8_t* winner, int N,
           int H, int W, int C, int F) {
    return task::run([&] {
        [[maybe_unused]] const Shape s{N, H, W, C, F};
        // BEGIN SOLUTION
        std::vector<float> sums(4 * F);
        for (int n = 0; n < N; ++n) {
            for (int i = 0; i < H; i += 2) {
                for (int j = 0; j < W; j += 2, y += F, winner += F) {
                    for (int place = 0; place < 4; ++place) {
                        float* to = sums.data() + place * F;
                        std::copy(bias, bias + F, to);
                        add_window(x + n * H * W * C, weight, i + place / 2, j + place % 2, s, to);
                    }
                    for (int f = 0; f < F; ++f) {
                        int best = 0;
                        for (int place = 1; place < 4; ++place) {
                            if (sums[place * F + f] > sums[best * F + f]) best = place;
                        }
                        const float value = sums[best * F + f];
                        y[f] = std::max(value, 0.0f);
                        winner[f] = value > 0 ? std::uint8_t(best) : 4;
                    }
                }
            }
        }
        // END SOLUTION
    });
}

TASK weight_gradient(const float* x, const float* dy, const std::uint8_t* winner, float* dweight, int N,
                     int H, int W, int C, int F) {
    return task::run([&] {
        // BEGIN SOLUTION
        std::fill(dweight, dweight + 9 * C * F, 0.0f);
        for (int n = 0; n < N; ++n) {
            for (int i = 0; i < H; i += 2) {
                for (int j = 0; j < W; j += 2) {
                    for (int f = 0; f < F; ++f) {
                        const int place = *winner++;
                        const float gradient = *dy++;
                        if (place == 4) continue;
                        for (int tap = 0; tap < 9; ++tap) {
                            const int row = i + place / 2 + tap / 3 - 1,
                                      column = j + place % 2 + tap % 3 - 1;
                            if (row < 0 || row >= H || column < 0 || column >= W) continue;
                            const float* pixel = x + ((n * H + row) * W + column) * C;
                            for (int c = 0; c < C; ++c)
                                dweight[(tap * C + c) * F + f] += gradient * pixel[c];
                        }
                    }
                }
            }
        }
        // END SOLUTION
    });
}
