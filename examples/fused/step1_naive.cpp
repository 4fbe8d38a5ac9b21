// Step 1: the definition, written as loops.  Images are (N,C,H,W), weights (F,C,3,3), as in PyTorch.
//
// One sum is computed after the other, so every addition waits for the one before it.  And for every value
// the code checks whether it lies inside the image.
#include "common.h"

static void convolution(const float* x, const float* w, const float* b, float* map, const Shape& s) {
    for (int n = 0; n < s.N; ++n)
        for (int f = 0; f < s.F; ++f)
            for (int i = 0; i < s.H; ++i)
                for (int j = 0; j < s.W; ++j) {
                    float sum = b[f];
                    for (int c = 0; c < s.C; ++c)
                        for (int u = 0; u < 3; ++u)
                            for (int v = 0; v < 3; ++v) {
                                const int h = i + u - 1, k = j + v - 1;
                                if (h < 0 || h >= s.H || k < 0 || k >= s.W) continue;
                                sum += x[((n * s.C + c) * s.H + h) * s.W + k] *
                                       w[((f * s.C + c) * 3 + u) * 3 + v];
                            }
                    map[((n * s.F + f) * s.H + i) * s.W + j] = sum;
                }
}

static void pool(const float* map, float* y, std::uint8_t* winner, const Shape& s) {
    for (int row = 0; row < s.N * s.F * s.H / 2; ++row)
        for (int j = 0; j < s.W / 2; ++j) {
            const float* window = map + 2 * row * s.W + 2 * j;
            const float values[4] = {window[0], window[1], window[s.W], window[s.W + 1]};
            int best = 0;
            for (int place = 1; place < 4; ++place)
                if (values[place] > values[best]) best = place;
            y[row * s.W / 2 + j] = values[best];
            winner[row * s.W / 2 + j] = static_cast<std::uint8_t>(values[best] > 0 ? best : 4);
        }
}

extern "C" void forward(const float* x, const float* w, const float* b, float* y, std::uint8_t* winner,
                        const Shape* s, int) {
    float* map = full_map(*s);
    convolution(x, w, b, map, *s);
    for (int i = 0; i < s->N * s->F * s->H * s->W; ++i) map[i] = map[i] > 0 ? map[i] : 0;
    pool(map, y, winner, *s);
}
