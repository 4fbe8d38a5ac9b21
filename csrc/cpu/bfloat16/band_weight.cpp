#include "band_weight.h"

namespace minicnn {

template <int tiles>
void BandPacker::pack_dy_row(std::int64_t row, std::int64_t channel, std::uint32_t* to,
                             std::int64_t apart) const {
    if (in_.winner) return pack_pooled_row<tiles>(row, channel, to, apart);
    const std::int64_t start = row * p_.OW * p_.F + channel, size = filters_.pixels * p_.F,
                       pixels = filters_.row_pixels(row);
    if (in_.relu_y) {
        const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
            const std::int64_t place = start + i * p_.F;
            return MaskedPixel{in_.dy + place, in_.relu_y + place, size - place};
        };
        pack_pairs<tiles>(pixels, at, to, apart);
    } else {
        const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
            const std::int64_t place = start + i * p_.F;
            return PlainPixel{in_.dy + place, size - place};
        };
        pack_pairs<tiles>(pixels, at, to, apart);
    }
}

// A row of the map from the pooled gradient: each pair is the upper or the lower half of a window.
template <int tiles>
void BandPacker::pack_pooled_row(std::int64_t row, std::int64_t channel, std::uint32_t* to,
                                 std::int64_t apart) const {
    const std::int64_t rows = p_.OH / 2, cols = p_.OW / 2, r = row % p_.OH / 2;
    const std::int64_t size = p_.N * rows * cols * p_.F;
    const auto lower = static_cast<std::uint8_t>(row % p_.OH % 2 * 2);
    std::int64_t place = ((row / p_.OH * rows + r) * cols) * p_.F + channel;
    const std::int64_t windows = r < rows ? cols : 0;
    for (std::int64_t i = 0; i < windows; ++i, place += p_.F, to += tile_cols) {
        const auto cell = [&](std::uint8_t number) __attribute__((always_inline)) {
            return PooledPixel{in_.dy + place, in_.winner + place, number, size - place};
        };
        pack_pair<tiles>(cell(lower), cell(static_cast<std::uint8_t>(lower + 1)), to, apart);
    }
    for (std::int64_t i = windows; i < bands_.pairs; ++i, to += tile_cols) {
        pack_pair<tiles>(NoPixel{}, NoPixel{}, to, apart);
    }
}

// dy's rows as pairs, then transposed: left[tile of filters][segment][depth][filter][pair].
void BandPacker::pack_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged,
                         std::uint32_t* left) const {
    for (std::int64_t b = F.first; b < F.last; b += blocks_together) {
        const Blocks some{b, std::min(b + blocks_together, F.last), F.channels};
        pack_blocks_of_dy(some, rows, staged, left + F.tile(b) * left_apart());
    }
}

void BandPacker::pack_blocks_of_dy(const Blocks& F, MapBands::Rows rows, std::uint32_t* staged,
                                   std::uint32_t* left) const {
    const std::int64_t apart = bands_.depth_of(rows.count()) * words_in_tile;
    const std::int64_t used =
        ((rows.count() - 1) * bands_.pairs + (filters_.row_pixels(rows.last - 1) + 1) / 2) * tile_cols;
    for (std::int64_t row = rows.first; row < rows.last; ++row) {
        for (std::int64_t b = F.first; b < F.last; ++b) {
            std::uint32_t* to = staged + F.tile(b) * apart + (row - rows.first) * bands_.pairs * tile_cols;
            if (F.width(b) == 2) {
                pack_dy_row<2>(row, b * block_channels, to, apart);
            } else {
                pack_dy_row<1>(row, b * block_channels, to, apart);
            }
        }
    }
    for (std::int64_t t = 0; t < F.tiles(); ++t) {
        std::uint32_t* from = staged + t * apart;
        std::fill(from + used, from + apart, 0u);
        for (std::int64_t k = 0; k < apart; k += words_in_tile) {
            transpose_tile(from + k, left + t * left_apart() + k);
        }
    }
}

// Row `row` of a copy as a row of x, or nullptr in the padding.
const bfloat16* BandPacker::source_row(std::int64_t first, std::int64_t row, std::int64_t u) const {
    const std::int64_t at = bands_.shares_rows ? first : first + row, image = at / p_.OH;
    const std::int64_t h = at % p_.OH * p_.stride_h - p_.pad_h + (bands_.shares_rows ? row : u * p_.dil_h);
    return h < 0 || h >= p_.H ? nullptr : in_.x + (image * p_.H + h) * p_.W * p_.C;
}

void BandPacker::pack_row(const Blocks& C, const bfloat16* source, std::int64_t pixels,
                          std::uint32_t* to) const {
    const bfloat16* end = in_.x + filters_.source_pixels * p_.C;
    const std::int64_t apart = right_apart();
    for (std::int64_t v = 0; v < filters_.KW; ++v) {
        for (std::int64_t b = C.first; b < C.last; ++b) {
            const auto pack = C.width(b) == 2 ? pack_source_row<2> : pack_source_row<1>;
            pack(source ? source + b * block_channels : nullptr, end, pixels, p_.W, p_.C, p_.stride_w,
                 v * p_.dil_w - p_.pad_w, to + (v * C.tiles() + C.tile(b)) * apart, apart);
        }
    }
}

void BandPacker::pack_joined_row(const Blocks& C, const bfloat16* source, bfloat16* padded_row,
                                 std::uint32_t* to) const {
    const std::int64_t width = row_width(), apart = right_apart();
    if (source) {
        const std::int64_t before = std::min(p_.pad_w, width);
        const std::int64_t inside = std::clamp<std::int64_t>(width - before, 0, p_.W);
        std::fill_n(padded_row, before * p_.C, bfloat16{});
        std::copy_n(source, inside * p_.C, padded_row + before * p_.C);
        std::fill(padded_row + (before + inside) * p_.C, padded_row + width * p_.C, bfloat16{});
    } else {
        std::fill_n(padded_row, width * p_.C, bfloat16{});
    }
    const std::int64_t step = p_.stride_w * p_.C;
    for (std::int64_t b = C.first; b < C.last; ++b) {
        const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
            const std::int64_t place = i * step + b * block_channels;
            return PlainPixel{padded_row + place, width * p_.C - place};
        };
        std::uint32_t* block_to = to + C.tile(b) * apart;
        if (C.width(b) == 2) {
            pack_pairs<2>(p_.OW, at, block_to, apart);
        } else {
            pack_pairs<1>(p_.OW, at, block_to, apart);
        }
    }
}

// x as pairs: right[copy][tile of channels][segment][row][pair][channel].
void BandPacker::pack_x(const Blocks& C, MapBands::Rows rows, std::uint32_t* right,
                        bfloat16* padded_row) const {
    const std::int64_t copy_rows = bands_.copy_rows - bands_.rows + rows.count();
    for (std::int64_t row = 0; row < copy_rows; ++row) {
        for (std::int64_t u = 0; u < (bands_.shares_rows ? 1 : p_.KH); ++u) {
            const bfloat16* source = source_row(rows.first, row, u);
            std::uint32_t* to =
                right + u * filters_.KW * C.tiles() * right_apart() + row * bands_.pairs * tile_cols;
            if (filters_.joined) {
                pack_joined_row(C, source, padded_row, to);
            } else {
                pack_row(C, source, filters_.row_pixels(rows.first + (bands_.shares_rows ? 0 : row)), to);
            }
        }
    }
}

}  // namespace minicnn
