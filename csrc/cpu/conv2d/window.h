// Copying a part of an image, with the padding around it.
#pragma once

#include <cstdint>

namespace minicnn {

// The window [h0,h1) x [w0,w1) of an image (H,W,C).  It is 0 outside the image and where the mask, an image
// like it or nullptr, is <= 0: so that padding is zeros, and a gradient passes a ReLU where its output is >
// 0.
template <typename T>
void copy_window(const T* image, const T* mask, std::int64_t H, std::int64_t W, std::int64_t C,
                 std::int64_t h0, std::int64_t h1, std::int64_t w0, std::int64_t w1, T* out);

}  // namespace minicnn
