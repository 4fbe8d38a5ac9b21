// What make_batch does to one image of a batch, and where it reads the images.
#pragma once

#include <cstdint>

namespace minicnn {

// From `top` and `left` to before `bottom` and `right`.
struct Box {
    std::int32_t top, left, bottom, right;
};

// minicnn/batch_row.py's BATCH_ROW: minicnn/ops/make_batch.py tells what each field asks for.
struct BatchRow {
    std::int32_t flip, down, right, warped;
    float affine[2][3];
    float reach[4];  // top, left, bottom, right
    float brightness, contrast, saturation, step, threshold;
    Box cutout, erase, patch;
    std::int32_t partner;
    float share;
};

// The dataset's images (M,C,H,W) in any memory order: where pixel (0,0) of image 0 lies, and how many bytes
// lie between neighbours along each axis.
struct Bytes {
    const std::uint8_t* data;
    std::int64_t C, H, W;
    std::int64_t image_step, channel_step, row_step, column_step;
};

// value * scale + shift normalises a pixel; fill is the colour of boxes, from 0 to 255.  All are (C).
template <typename T>
struct Normalization {
    const T *scale, *shift;
    const float* fill;
};

// A batch: row n of the table makes an image of the images' image rows[n].  All arrays are (B).
struct BatchPlan {
    const std::int64_t* rows;
    const BatchRow* table;
    std::int64_t B;
};

// The mean of an image is that of its pixels rounded to 1/65536: a sum of whole numbers has no order.
constexpr float pixel_fractions = 65536;

// The shares of red, green and blue in a pixel's grey.
constexpr float red_share = 0.2989f, green_share = 0.587f, blue_share = 0.114f;

}  // namespace minicnn
