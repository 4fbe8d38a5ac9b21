// One pass over the bytes of the winners.  Almost all windows lie in the map as a whole, and there a
// comparison with the number of cells is enough.
#include "winners.h"

#include <atomic>

#include "../core/parallel.h"
#include "../max_pool2d.h"

namespace minicnn {
namespace {

class Winners {
  public:
    Winners(const std::uint8_t* winner, const ConvParams& p, const PoolParams& pool)
        : winner_(winner),
          p_(p),
          pool_(pool),
          whole_rows_(whole_windows(pool.OH, pool.stride_h, pool.pad_h, pool.dil_h, pool.KH, p.OH)),
          whole_columns_(whole_windows(pool.OW, pool.stride_w, pool.pad_w, pool.dil_w, pool.KW, p.OW)) {
        for (std::int64_t place = 0; place < pool.KH * pool.KW; ++place) {
            down_[place] = place / pool.KW;
            across_[place] = place % pool.KW;
        }
    }

    bool are_usable() const {
        std::atomic<bool> usable{true};
        for_rows([&](std::int64_t row) {
            if (!row_is_usable(row)) usable.store(false, std::memory_order_relaxed);
        });
        return usable;
    }

    void copy_usable(std::uint8_t* to) const {
        for_rows([&](std::int64_t row) {
            const Cells rows = rows_inside(row);
            for (std::int64_t column = 0; column < pool_.OW; ++column) {
                const Cells columns = columns_inside(column);
                const std::int64_t first = (row * pool_.OW + column) * p_.F;
                for (std::int64_t i = first; i < first + p_.F; ++i) {
                    to[i] = is_usable(winner_[i], rows, columns) ? winner_[i] : relu_off;
                }
            }
        });
    }

  private:
    // The windows along one axis that lie in the map with all their cells.
    static Windows whole_windows(std::int64_t out, std::int64_t stride, std::int64_t pad,
                                 std::int64_t dilation, std::int64_t kernel, std::int64_t size) {
        const std::int64_t first = std::min(out, (pad + stride - 1) / stride);
        const std::int64_t room = size + pad - dilation * (kernel - 1) - 1;
        return {first, std::clamp(room < 0 ? 0 : room / stride + 1, first, out)};
    }

    template <typename F>
    void for_rows(const F& f) const {
        constexpr std::int64_t bytes_per_piece = 1 << 17;
        const std::int64_t grain = std::max<std::int64_t>(1, bytes_per_piece / (pool_.OW * p_.F));
        parallel_for(0, p_.N * pool_.OH, grain, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t row = first; row < last; ++row) f(row);
        });
    }

    Cells rows_inside(std::int64_t row) const {
        return cells_inside(row % pool_.OH, pool_.stride_h, pool_.pad_h, pool_.dil_h, pool_.KH, p_.OH);
    }
    Cells columns_inside(std::int64_t column) const {
        return cells_inside(column, pool_.stride_w, pool_.pad_w, pool_.dil_w, pool_.KW, p_.OW);
    }

    bool is_usable(std::uint8_t place, const Cells& rows, const Cells& columns) const {
        if (place >= pool_.KH * pool_.KW) return place == relu_off;
        return rows.first <= down_[place] && down_[place] < rows.last && columns.first <= across_[place] &&
               across_[place] < columns.last;
    }

    bool row_is_usable(std::int64_t row) const {
        const std::int64_t r = row % pool_.OH;
        const bool whole = whole_rows_.first <= r && r < whole_rows_.last;
        const Windows columns = whole ? whole_columns_ : Windows{pool_.OW, pool_.OW};
        return windows_are_usable(row, 0, columns.first) &&
               are_cells(winner_ + (row * pool_.OW + columns.first) * p_.F,
                         (columns.last - columns.first) * p_.F) &&
               windows_are_usable(row, columns.last, pool_.OW);
    }

    // The winners of whole windows.
    bool are_cells(const std::uint8_t* winner, std::int64_t count) const {
        const auto cells = static_cast<std::uint8_t>(pool_.KH * pool_.KW);
        std::uint8_t wrong = 0;
        for (std::int64_t i = 0; i < count; ++i) wrong |= (winner[i] >= cells) & (winner[i] != relu_off);
        return !wrong;
    }

    bool windows_are_usable(std::int64_t row, std::int64_t first, std::int64_t last) const {
        const Cells rows = rows_inside(row);
        for (std::int64_t column = first; column < last; ++column) {
            const Cells columns = columns_inside(column);
            const std::uint8_t* winner = winner_ + (row * pool_.OW + column) * p_.F;
            for (std::int64_t f = 0; f < p_.F; ++f) {
                if (!is_usable(winner[f], rows, columns)) return false;
            }
        }
        return true;
    }

    const std::uint8_t* winner_;
    const ConvParams& p_;
    const PoolParams& pool_;
    Windows whole_rows_, whole_columns_;
    std::int64_t down_[256], across_[256];  // the row and the column of each cell in its window
};

}  // namespace

const std::uint8_t* usable_winners(const std::uint8_t* winner, const ConvParams& p, const PoolParams& pool,
                                   Scratch& scratch) {
    const Winners winners(winner, p, pool);
    if (winners.are_usable()) return winner;
    auto* copy = scratch.take<std::uint8_t>(p.N * pool.OH * pool.OW * p.F);
    winners.copy_usable(copy);
    return copy;
}

}  // namespace minicnn
