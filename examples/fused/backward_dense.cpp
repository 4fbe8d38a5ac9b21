// Backward, the usual way.  The pool's backward pass writes the gradients into a full map, of which at
// least three quarters are zeros.  The convolution's backward pass multiplies them all.
#include "patches.h"
#include "tile.h"

extern "C" void backward(const float* x, const float* dy, const std::uint8_t* winner, float* dw,
                         const Shape* s, int threads) {
    float* map = full_map(*s);
    parallel(threads, s->N * s->H, [&](int first, int last) {
        for (int row = first; row < last; ++row)
            for (int j = 0; j < s->W; ++j)
                for (int f = 0; f < s->F; ++f) {
                    const std::int64_t at = (std::int64_t(row / 2) * (s->W / 2) + j / 2) * s->F + f;
                    const int place = row % 2 * 2 + j % 2;
                    map[(std::int64_t(row) * s->W + j) * s->F + f] = winner[at] == place ? dy[at] : 0.0f;
                }
    });
    std::memset(dw, 0, std::size_t(s->F) * 9 * s->C * sizeof(float));
    parallel(threads, s->F, [&](int first, int last) {
        std::vector<Entry> list(std::size_t(s->H) * s->W);
        for (int n = 0; n < s->N; ++n) {
            const float* image = padded(x + std::int64_t(n) * s->H * s->W * s->C, *s);
            for (int f = first; f < last; ++f) {
                for (int i = 0; i < s->H; ++i)
                    for (int j = 0; j < s->W; ++j)
                        list[i * s->W + j] = {map[((std::int64_t(n) * s->H + i) * s->W + j) * s->F + f],
                                              (i * (s->W + 2) + j) * s->C};
                add_patches(list, image, dw + f * 9 * s->C, *s);
            }
        }
    });
}
