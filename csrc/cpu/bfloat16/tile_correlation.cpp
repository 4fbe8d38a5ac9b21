// Shares a correlation out between threads, and takes each band of it through the tile unit: block by block
// of filters, and segment by segment of rows.
#include "tile_correlation.h"

#include <atomic>
#include <utility>

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

// Stores the sums of one segment of rows after the other, a few pixels at a time, while the unit sums those
// that come next: so stores take little time of their own.
class SumStore {
  public:
    SumStore(const TileCorrelation& c, const TilePlan& plan, const PackedTiles& filters,
             const CorrelationOutput& out, FiniteCheck& check)
        : c_(c), filters_(filters), out_(out), check_(check), pitch_(plan.pitch) {}

    // Rows [first, first + rows), counted over all images, for one block of filters: the sums of their
    // pixels, as they follow each other in memory.
    struct Segment {
        std::int64_t block;
        const float* sums;
        std::int64_t first, rows;
    };
    // The batches to come are those of this segment.
    void next(const Segment& segment) {
        next_ = segment;
        is_next_ = true;
    }
    // A phase of a stride may have no taps, and so no steps.
    void begin_batch(std::int64_t steps) {
        const std::int64_t parts = std::max<std::int64_t>(1, steps);
        share_ = (ready_ - stored_ + parts - 1) / parts;
    }
    void after_step() {
        if (stored_ < ready_) store_up_to(std::min(stored_ + share_, ready_));
    }
    // The sums of the segment's first `groups` groups are there.
    void end_batch(std::int64_t groups) {
        finish();
        if (is_next_) begin(next_);
        ready_ = groups * tile_rows;
    }
    void finish() {
        if (stored_ < ready_) store_up_to(ready_);
    }

  private:
    void begin(const Segment& segment) {
        is_next_ = false;
        segment_ = segment;
        count_ = filters_.filters_of(segment.block);
        rows_ = segment.rows, cols_ = c_.cols;
        if (is_contiguous()) cols_ *= rows_, rows_ = 1;
        row_ = col_ = stored_ = 0;
    }

    // Whether the rows follow each other without a gap, in the sums and in the output.
    bool is_contiguous() const {
        return !c_.pooled && pitch_ == c_.cols && out_.row_stride == c_.cols * out_.col_stride &&
               out_.image_stride == c_.rows * out_.row_stride;
    }

    void store_up_to(std::int64_t pixels) {
        stored_ = pixels;
        switch (count_) {
            case block_filters:
                return store<block_filters, true>();
            case tile_cols:
                return store<tile_cols, true>();
        }
        if (count_ > tile_cols) return store<block_filters, false>();
        store<tile_cols, false>();
    }

    template <int columns, bool whole>
    void store() {
        if (c_.pooled) return store_pooled<columns, whole>();
        while (row_ < rows_) {
            const std::int64_t end = std::min(cols_, stored_ - row_ * pitch_);
            if (end > col_) store_part<columns, whole>(end);
            if (end < cols_) return;
            ++row_, col_ = 0;
        }
    }

    // The columns [col_, end) of the row.
    template <int columns, bool whole>
    void store_part(std::int64_t end) {
        const float* from = segment_.sums + (row_ * pitch_ + col_) * block_filters;
        const std::int64_t to = place(1) + col_ * out_.col_stride, pixels = end - col_;
        if (out_.residual) {
            store_pixels<columns, whole, true>(from, pixels, count_, out_.relu, out_.residual + to,
                                               out_.y + to, out_.col_stride, check_);
        } else {
            store_pixels<columns, whole, false>(from, pixels, count_, out_.relu, nullptr, out_.y + to,
                                                out_.col_stride, check_);
        }
        col_ = end;
    }

    // The rows of windows whose sums are all there.
    template <int columns, bool whole>
    void store_pooled() {
        for (; row_ < rows_ && (row_ + 1) * pitch_ + cols_ <= stored_; row_ += 2) {
            const float* from = segment_.sums + row_ * pitch_ * block_filters;
            const std::int64_t to = place(2);
            if (out_.winner) {
                store_pooled_pixels<columns, whole, true>(from, pitch_, cols_ / 2, count_, out_.relu,
                                                          out_.y + to, out_.winner + to, out_.col_stride,
                                                          check_);
            } else {
                store_pooled_pixels<columns, whole, false>(from, pitch_, cols_ / 2, count_, out_.relu,
                                                           out_.y + to, nullptr, out_.col_stride, check_);
            }
        }
    }

    // Where the row begins in the output, which has a row for so many of the correlation.
    std::int64_t place(std::int64_t rows_together) const {
        const std::int64_t row = segment_.first + row_;
        return row / c_.rows * out_.image_stride + row % c_.rows / rows_together * out_.row_stride +
               segment_.block * block_filters;
    }

    const TileCorrelation& c_;
    const PackedTiles& filters_;
    const CorrelationOutput& out_;
    FiniteCheck& check_;
    std::int64_t pitch_;
    Segment segment_{}, next_{};
    bool is_next_ = false;
    std::int64_t count_ = 0, rows_ = 0, cols_ = 0;     // filters, rows and columns of the segment
    std::int64_t ready_ = 0, stored_ = 0, share_ = 0;  // pixels; after each step, `share_` are stored
    std::int64_t row_ = 0, col_ = 0;                   // the first pixel that is not stored
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
        // While a segment is stored, the next one is summed.
        const std::int64_t segment_sums = plan_.groups(plan_.segment_rows) * tile_rows * block_filters;
        float *sums = own.take<float>(segment_sums), *other_sums = own.take<float>(segment_sums);
        SumStore store(c_, plan_, filters_, out_, check);
        for (std::int64_t b = task.first_block; b < task.last_block; ++b) {
            const TileOperands operands{pixel * static_cast<std::int64_t>(sizeof *source),
                                        source_.offsets(), plan_.runs.steps(), filters_.block(b),
                                        filters_.bias + b * block_filters};
            for (std::int64_t r = task.first_row; r < task.last_row; r += plan_.segment_rows) {
                const std::int64_t rows = std::min(plan_.segment_rows, task.last_row - r);
                store.next({b, sums, r, rows});
                sum_segment(operands, filters_.is_wide(b), source + (r - task.first_row) * row, pixel, row,
                            rows, sums, store);
                std::swap(sums, other_sums);
            }
        }
        store.finish();
    }

    void sum_segment(const TileOperands& operands, bool wide, const bfloat16* source, std::int64_t pixel,
                     std::int64_t row, std::int64_t rows, float* sums, SumStore& store) const {
        const std::int64_t groups = plan_.groups(rows), group = tile_rows * pixel;
        if (plan_.flat) {
            const auto a = [&](std::int64_t g) { return source + g * group; };
            sum_groups<Unit>(operands, wide, groups, a, sums, store);
        } else {
            const std::int64_t per_row = plan_.groups_per_row();
            const auto a = [&](std::int64_t g) { return source + g / per_row * row + g % per_row * group; };
            sum_groups<Unit>(operands, wide, groups, a, sums, store);
        }
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
