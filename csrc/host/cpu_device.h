// What Device (host.h) is where arrays live in the CPU's memory: for the CPU module, and for the CUDA
// module that the emulation runs.
#pragma once

#include <cstdint>
#include <optional>

#include "torch_headers.h"

namespace minicnn {

using at::Tensor;

struct CpuDevice {
    static constexpr at::DeviceType type = at::kCPU;

    // at::empty without the dispatcher, which takes a microsecond: in a small network that is noticeable.
    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        return Tensor(at::detail::empty_cpu(sizes, dtype, /*pin_memory=*/false, format));
    }

    // No copy: the memory lives as long as the kernel runs.
    static Tensor upload(void* data, std::size_t bytes) {
        return at::from_blob(data, {static_cast<std::int64_t>(bytes)}, at::kByte);
    }

    struct Call {
        Call() {}
    };
    static std::optional<at::Device> elsewhere(const Tensor&) { return std::nullopt; }

    static std::optional<std::int64_t> wrong_label(const Tensor& labels, std::int64_t classes,
                                                   std::int64_t ignored) {
        const auto* data = static_cast<const std::int64_t*>(labels.const_data_ptr());
        for (std::int64_t i = 0; i < labels.numel(); ++i) {
            if ((data[i] < 0 || data[i] >= classes) && data[i] != ignored) return data[i];
        }
        return std::nullopt;
    }
};

}  // namespace minicnn
