// Step 4: every thread takes its share of the images.  No two threads write to the same place, and no sum
// is split between threads, so the bits are the same for any number of threads.
#include "tile.h"

extern "C" void forward(const float* x, const float* w, const float* b, float* y, std::uint8_t* winner,
                        const Shape* s, int threads) {
    float* map = full_map(*s);
    parallel(threads, s->N, [&](int first, int last) {
        for_each_tile(x, w, b, *s, first, last, [&](const auto& tile, int n, int i, int j, int f) {
            for (int r = 0; r < 2; ++r)
                for (int c = 0; c < tile.cols; ++c) {
                    float* to = map + ((std::int64_t(n) * s->H + i + r) * s->W + j + c) * s->F + f;
                    for (int v = 0; v < vectors; ++v) store(to + v * lanes, tile.sum[r][c][v]);
                }
        });
    });
    relu(map, *s, threads);
    max_pool(map, y, winner, *s, threads);
}
