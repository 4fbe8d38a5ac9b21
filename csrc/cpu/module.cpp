// The CPU module: where its arrays live, whose threads it uses, and what it is called.

#include <cstdint>
#include <optional>

#include "../host/torch_headers.h"

namespace minicnn {

using at::Tensor;

struct Device {
    static constexpr at::DeviceType type = at::kCPU;

    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        // This is at::empty without the dispatcher, whose microsecond counts in a small network.
        return Tensor(at::detail::empty_cpu(sizes, dtype, /*pin_memory=*/false, format));
    }

    struct Call {
        Call() {}
    };
    static std::optional<at::Device> elsewhere(const Tensor&) { return std::nullopt; }

    static std::optional<std::int64_t> wrong_label(const Tensor& labels, std::int64_t classes) {
        const auto* data = static_cast<const std::int64_t*>(labels.const_data_ptr());
        for (std::int64_t i = 0; i < labels.numel(); ++i) {
            if (data[i] < 0 || data[i] >= classes) return data[i];
        }
        return std::nullopt;
    }
};

}  // namespace minicnn

#include "../host/bindings.h"
#include "core/parallel.h"

namespace minicnn {

int num_threads() { return at::get_num_threads(); }

void run_on_threads(int count, void (*body)(void*, int), void* context) {
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) body(context, static_cast<int>(i));
    });
}

}  // namespace minicnn

PYBIND11_MODULE(_cpu, module) { minicnn::bind(module); }
