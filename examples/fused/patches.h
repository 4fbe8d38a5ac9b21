// The gradient to the weights: for each filter a sum of patches of x, 3 x 3 x C values each, times the
// gradient dy at the patch's pixel.  A list says which patches, and times what.
#pragma once

#include "common.h"

struct Entry {
    float gradient;
    int patch;  // where the patch starts in the padded image
};

// Adds the listed patches to one filter's sum (3,3,C), six vectors at a time in registers.
inline void add_patches(const std::vector<Entry>& list, const float* image, float* sum, const Shape& s) {
    constexpr int vectors = 6;  // 3 * C values are a multiple of them
    for (int u = 0; u < 3; ++u)
        for (int at = 0; at < 3 * s.C; at += vectors * lanes) {
            Vec acc[vectors];
            float* to = sum + u * 3 * s.C + at;
            const float* from = image + u * (s.W + 2) * s.C + at;
#pragma GCC unroll 6
            for (int v = 0; v < vectors; ++v) acc[v] = load(to + v * lanes);
            for (const Entry& entry : list) {
#pragma GCC unroll 6
                for (int v = 0; v < vectors; ++v)
                    acc[v] += entry.gradient * load(from + entry.patch + v * lanes);
            }
#pragma GCC unroll 6
            for (int v = 0; v < vectors; ++v) store(to + v * lanes, acc[v]);
        }
}
