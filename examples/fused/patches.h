// The gradient to the weights is, for each filter, a sum over patches of x, 3 x 3 x C values each.  Each
// patch is multiplied by the gradient dy at its pixel.  A list names the patches and their gradients.
#pragma once

#include "common.h"

struct Entry {
    float gradient;
    int patch;  // where the patch starts in the padded image
};

// Adds the listed patches to one filter's sum (3,3,C).  Six vectors of the sum at a time are in registers.
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
