// Step 5: ReLU is applied before a value leaves its register.  So no separate pass has to read and write
// the whole map.
#include "tile.h"

extern "C" void forward(const float* x, const float* w, const float* b, float* y, std::uint8_t* winner,
                        const Shape* s, int threads) {
    float* map = full_map(*s);
    parallel(threads, s->N, [&](int first, int last) {
        for_each_tile(x, w, b, *s, first, last, [&](const auto& tile, int n, int i, int j, int f) {
            for (int r = 0; r < 2; ++r)
                for (int c = 0; c < tile.cols; ++c)
                    for (int v = 0; v < vectors; ++v) {
                        const Vec sum = tile.sum[r][c][v];
                        store(
                            map + ((std::int64_t(n) * s->H + i + r) * s->W + j + c) * s->F + f + v * lanes,
                            sum > 0 ? sum : Vec{});
                    }
        });
    });
    max_pool(map, y, winner, *s, threads);
}
