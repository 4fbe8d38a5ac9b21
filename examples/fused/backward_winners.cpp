// Backward from the winners alone.  Each pooled gradient belongs to one pixel, and its byte says to which.
// So the sum has a quarter of the patches, and fewer where ReLU is off.  No full map is made.
#include "patches.h"
#include "tile.h"

extern "C" void backward(const float* x, const float* dy, const std::uint8_t* winner, float* dw,
                         const Shape* s, int threads) {
    std::memset(dw, 0, std::size_t(s->F) * 9 * s->C * sizeof(float));
    parallel(threads, s->F, [&](int first, int last) {
        std::vector<Entry> list;
        for (int n = 0; n < s->N; ++n) {
            const float* image = padded(x + std::int64_t(n) * s->H * s->W * s->C, *s);
            for (int f = first; f < last; ++f) {
                list.clear();
                for (int i = 0; i < s->H / 2; ++i)
                    for (int j = 0; j < s->W / 2; ++j) {
                        const int row = n * (s->H / 2) + i;
                        const std::int64_t at = (std::int64_t(row) * (s->W / 2) + j) * s->F + f;
                        const int place = winner[at];
                        if (place == 4 || dy[at] == 0) continue;
                        list.push_back(
                            {dy[at], ((2 * i + place / 2) * (s->W + 2) + 2 * j + place % 2) * s->C});
                    }
                add_patches(list, image, dw + f * 9 * s->C, *s);
            }
        }
    });
}
