// Shares a correlation out between threads, and takes each band of it through the tile unit: block by block
// of filters, and segment by segment of rows.
#include "tile_correlation.h"

#include <atomic>

#include "../conv2d/correlation.h"
#include "tile_product.h"
#include "tile_units.h"

namespace minicnn {
namespace {

// The tile unit does so many times the work of a vector instruction: a piece of work that is worth waking a
// thread for is as much larger.
constexpr double unit_speed = 8;
// A large set of filters is shared out in parts where there are fewer bands than this.
constexpr std::int64_t wanted_tasks = 8;

// Rows of the output, counted over all images, in bands of which none crosses an image if a band is read
// from the image; and blocks of filters in parts.
class Sharing {
  public:
    Sharing(const TileCorrelation& c, const TilePlan& plan, const TileSource& source, std::int64_t blocks)
        : images_(plan.gathered ? 1 : c.N), rows_(plan.gathered ? c.N * c.rows : c.rows), blocks_(blocks) {
        const double flops_per_row =
            2.0 * tile_depth * static_cast<double>(plan.runs.steps() * c.F * c.cols);
        if (plan.gathered) {
            band_rows_ = std::min(plan.segment_rows, rows_);
        } else {
            band_rows_ =
                Bands(c.N, c.rows, plan.segment_rows, source.bytes_per_row(), flops_per_row / unit_speed)
                    .rows;
        }
        bands_per_image_ = (rows_ + band_rows_ - 1) / band_rows_;
        const double flops = flops_per_row / unit_speed * static_cast<double>(band_rows_);
        const std::int64_t bands = images_ * bands_per_image_;
        parts_ = std::clamp<std::int64_t>(wanted_tasks / bands, 1, blocks);
        parts_ = std::clamp<std::int64_t>(static_cast<std::int64_t>(flops / least_flops_), 1, parts_);
        grain_ = grain_for(flops / static_cast<double>(parts_));
    }

    std::int64_t tasks() const { return images_ * bands_per_image_ * parts_; }
    std::int64_t grain() const { return grain_; }

    struct Task {
        std::int64_t first_row, last_row, first_block, last_block;
    };
    Task task(std::int64_t number) const {
        const std::int64_t band = number / parts_, part = number % parts_;
        const std::int64_t image = band / bands_per_image_ * rows_;
        const std::int64_t first = band % bands_per_image_ * band_rows_;
        return {image + first, image + std::min(first + band_rows_, rows_), blocks_ * part / parts_,
                blocks_ * (part + 1) / parts_};
    }

  private:
    static constexpr double least_flops_ = 5e5;
    std::int64_t images_, rows_, blocks_, band_rows_, bands_per_image_, parts_, grain_;
};

template <typename Unit>
class Engine {
  public:
    Engine(const TileCorrelation& c, const TilePlan& plan, const PackedTiles& filters,
           const CorrelationOutput& out, Scratch& scratch)
        : c_(c), plan_(plan), filters_(filters), out_(out), source_(c, plan, scratch) {}

    bool run() const {
        const Sharing sharing(c_, plan_, source_, filters_.blocks());
        std::atomic<bool> finite{true};
        parallel_for(0, sharing.tasks(), sharing.grain(), [&](std::int64_t first, std::int64_t last) {
            const TileConfiguration<Unit> configuration;
            FiniteCheck check;
            for (std::int64_t i = first; i < last; ++i) compute(sharing.task(i), check);
            if (!check.holds()) finite.store(false, std::memory_order_relaxed);
        });
        return finite;
    }

  private:
    void compute(const Sharing::Task& task, FiniteCheck& check) const {
        Scratch own;
        const std::int64_t n = task.first_row / c_.rows;
        const bfloat16* source = plan_.gathered ? source_.gather(task.first_row, task.last_row, own)
                                                : source_.band(n, task.first_row - n * c_.rows,
                                                               task.last_row - n * c_.rows, own);
        const std::int64_t pixel = source_.pixel_values();
        const std::int64_t row = plan_.gathered ? c_.cols * pixel : source_.row_values();
        auto* sums = own.take<float>(plan_.groups(plan_.segment_rows) * tile_rows * block_filters);
        for (std::int64_t b = task.first_block; b < task.last_block; ++b) {
            const TileOperands operands{pixel * static_cast<std::int64_t>(sizeof *source),
                                        source_.offsets(), plan_.runs.steps(), filters_.block(b),
                                        filters_.bias + b * block_filters};
            for (std::int64_t r = task.first_row; r < task.last_row; r += plan_.segment_rows) {
                const std::int64_t rows = std::min(plan_.segment_rows, task.last_row - r);
                sum_segment(operands, filters_.is_wide(b), source + (r - task.first_row) * row, pixel, row,
                            rows, sums);
                store_block(sums, r, rows, b, check);
            }
        }
    }

    void sum_segment(const TileOperands& operands, bool wide, const bfloat16* source, std::int64_t pixel,
                     std::int64_t row, std::int64_t rows, float* sums) const {
        const std::int64_t groups = plan_.groups(rows), group = tile_rows * pixel;
        if (plan_.flat) {
            sum_groups<Unit>(
                operands, wide, groups, [&](std::int64_t g) { return source + g * group; }, sums);
        } else {
            const std::int64_t per_row = plan_.groups_per_row();
            const auto a = [&](std::int64_t g) { return source + g / per_row * row + g % per_row * group; };
            sum_groups<Unit>(operands, wide, groups, a, sums);
        }
    }

    void store_block(const float* sums, std::int64_t first, std::int64_t rows, std::int64_t block,
                     FiniteCheck& check) const {
        switch (filters_.filters_of(block)) {
            case block_filters:
                return store_segment<block_filters, true>(sums, first, rows, block, check);
            case tile_cols:
                return store_segment<tile_cols, true>(sums, first, rows, block, check);
        }
        if (filters_.is_wide(block))
            return store_segment<block_filters, false>(sums, first, rows, block, check);
        store_segment<tile_cols, false>(sums, first, rows, block, check);
    }

    // Stores the sums of the rows [first, first + rows), counted over all images.
    template <int columns, bool whole>
    void store_segment(const float* sums, std::int64_t first, std::int64_t rows, std::int64_t block,
                       FiniteCheck& check) const {
        const std::int64_t filter = block * block_filters, filters = filters_.filters_of(block);
        const std::int64_t step = c_.pooled ? 2 : 1;
        std::int64_t cols = c_.cols;
        if (is_contiguous()) cols *= rows, rows = 1;
        for (std::int64_t r = first; r < first + rows; r += step) {
            const float* from = sums + (r - first) * plan_.pitch * block_filters;
            const std::int64_t to =
                r / c_.rows * out_.image_stride + r % c_.rows / step * out_.row_stride + filter;
            if (c_.pooled && out_.winner) {
                store_pooled_pixels<columns, whole, true>(from, plan_.pitch, cols / 2, filters, out_.relu,
                                                          out_.y + to, out_.winner + to, out_.col_stride,
                                                          check);
            } else if (c_.pooled) {
                store_pooled_pixels<columns, whole, false>(from, plan_.pitch, cols / 2, filters, out_.relu,
                                                           out_.y + to, nullptr, out_.col_stride, check);
            } else {
                store_pixels<columns, whole>(from, cols, filters, out_.relu, out_.y + to, out_.col_stride,
                                             check);
            }
        }
    }

    // Whether the rows follow each other without a gap, in the sums and in the output.
    bool is_contiguous() const {
        return !c_.pooled && plan_.pitch == c_.cols && out_.row_stride == c_.cols * out_.col_stride &&
               out_.image_stride == c_.rows * out_.row_stride;
    }

    const TileCorrelation& c_;
    const TilePlan& plan_;
    const PackedTiles& filters_;
    const CorrelationOutput& out_;
    TileSource source_;
};

}  // namespace

template <typename Unit>
bool correlate_tiles(const TileCorrelation& c, const TilePlan& plan, const PackedTiles& filters,
                     const CorrelationOutput& out) {
    Scratch scratch;
    return Engine<Unit>(c, plan, filters, out, scratch).run();
}

#define INSTANTIATE(Unit)                                                                            \
    template bool correlate_tiles<Unit>(const TileCorrelation&, const TilePlan&, const PackedTiles&, \
                                        const CorrelationOutput&);
MINICNN_FOR_EACH_TILE_UNIT(INSTANTIATE)

}  // namespace minicnn
