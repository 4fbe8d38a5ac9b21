// Step 6: max-pool is applied before a value leaves its register.  A tile of two rows holds whole windows,
// so only a quarter of the values is stored, with one byte each that says which value won.  The full map is
// never written, and need not be kept for the backward pass.  ReLU and the maximum may change places, so
// ReLU comes last and is applied to a quarter of the values.
#include "tile.h"

extern "C" void forward(const float* x, const float* w, const float* b, float* y, std::uint8_t* winner,
                        const Shape* s, int threads) {
    parallel(threads, s->N, [&](int first, int last) {
        for_each_tile(x, w, b, *s, first, last, [&](const auto& tile, int n, int i, int j, int f) {
            for (int c = 0; c < tile.cols; c += 2)
                for (int v = 0; v < vectors; ++v) {
                    Vec best = tile.sum[0][c][v];
                    IntVec place{};
                    keep_larger(best, place, tile.sum[0][c + 1][v], 1);
                    keep_larger(best, place, tile.sum[1][c][v], 2);
                    keep_larger(best, place, tile.sum[1][c + 1][v], 3);
                    const std::int64_t row = std::int64_t(n) * (s->H / 2) + i / 2;
                    const std::int64_t at = (row * (s->W / 2) + (j + c) / 2) * s->F + f + v * lanes;
                    const IntVec on = best > 0;
                    store(y + at, on ? best : Vec{});
                    store_bytes(winner + at, on ? place : IntVec{} + 4);
                }
        });
    });
}
