// Step 2: channels last.  Images are (N,H,W,C), weights (3,3,C,F), and the innermost loop runs over the
// filters.
//
// The weights of all filters for one input value lie side by side, so the compiler can use vector
// instructions for the innermost loop.  One input value is multiplied by 16 weights (8 without AVX-512) at
// once, for as many sums that do not wait for each other.  But for each of the 3 * 3 * C input values the
// sums are loaded from memory and stored again.
#include "common.h"

static void convolution(const float* x, const float* w, const float* b, float* map, const Shape& s) {
    for (int n = 0; n < s.N; ++n)
        for (int i = 0; i < s.H; ++i)
            for (int j = 0; j < s.W; ++j) {
                float* __restrict sum = map + ((n * s.H + i) * s.W + j) * s.F;
                for (int f = 0; f < s.F; ++f) sum[f] = b[f];
                for (int u = 0; u < 3; ++u)
                    for (int v = 0; v < 3; ++v) {
                        const int h = i + u - 1, k = j + v - 1;
                        if (h < 0 || h >= s.H || k < 0 || k >= s.W) continue;
                        const float* pixel = x + ((n * s.H + h) * s.W + k) * s.C;
                        const float* weights = w + (u * 3 + v) * s.C * s.F;
                        for (int c = 0; c < s.C; ++c)
                            for (int f = 0; f < s.F; ++f) sum[f] += pixel[c] * weights[c * s.F + f];
                    }
            }
}

extern "C" void forward(const float* x, const float* w, const float* b, float* y, std::uint8_t* winner,
                        const Shape* s, int) {
    float* map = full_map(*s);
    convolution(x, w, b, map, *s);
    relu(map, *s, 1);
    max_pool(map, y, winner, *s, 1);
}
