// The CUDA module: where its arrays live, which stream its kernels take, and where their scratch memory
// comes from.  With MINICNN_CUDA_EMULATION all of it is the CPU's, and kernels run in csrc/cuda_emulation.

#include <atomic>
#include <cstdint>
#include <optional>

#include "../host/torch_headers.h"
#include "core/device.h"
#include "core/tf32.h"

#if !defined(MINICNN_CUDA_EMULATION)
#include "core/torch_cuda_headers.h"
#endif

namespace minicnn {

using at::Tensor;

#if defined(MINICNN_CUDA_EMULATION)

struct Device {
    static constexpr at::DeviceType type = at::kCPU;

    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        return Tensor(at::detail::empty_cpu(sizes, dtype, /*pin_memory=*/false, format));
    }

    struct Call {
        Call() {}
    };
    static std::optional<at::Device> elsewhere(const Tensor&) { return std::nullopt; }

    static Tensor on_host(const Tensor& t) { return t; }
    static std::optional<std::int64_t> wrong_label(const Tensor& labels, std::int64_t classes);
};

namespace cuda {
cudaStream_t current_stream() { return nullptr; }
void* allocate_scratch(std::size_t bytes) {
    void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!data) throw std::bad_alloc();
    std::memset(data, 0xFF, bytes);  // NaN, as nobody may count on what it holds
    return data;
}
void free_scratch(void* data) { std::free(data); }
}  // namespace cuda

#else

struct Device {
    static constexpr at::DeviceType type = at::kCUDA;

    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        const at::Device device(at::kCUDA, c10::cuda::current_device());
        return Tensor(at::detail::empty_cuda(sizes, dtype, device, format));
    }

    // A call from Python.  Its first array makes that array's device the current one, until the call ends.
    struct Call {
        Call() { now = this; }
        ~Call() { now = nullptr; }
        Call(const Call&) = delete;
        c10::cuda::OptionalCUDAGuard guard;
        static inline thread_local Call* now = nullptr;
    };

    static std::optional<at::Device> elsewhere(const Tensor& t) {
        c10::cuda::OptionalCUDAGuard& guard = Call::now->guard;
        if (!guard.current_device()) guard.set_device(t.device());
        const at::Device device = *guard.current_device();
        return device == t.device() ? std::nullopt : std::optional(device);
    }

    static Tensor on_host(const Tensor& t) { return t.to(at::kCPU); }
    static std::optional<std::int64_t> wrong_label(const Tensor& labels, std::int64_t classes);
};

namespace cuda {
cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
void* allocate_scratch(std::size_t bytes) {
    return c10::cuda::CUDACachingAllocator::raw_alloc_with_stream(std::max<std::size_t>(bytes, 16),
                                                                  current_stream());
}
void free_scratch(void* data) { c10::cuda::CUDACachingAllocator::raw_delete(data); }
}  // namespace cuda

#endif

// Waits for the device: labels are checked before anything is computed from them.
std::optional<std::int64_t> Device::wrong_label(const Tensor& labels, std::int64_t classes) {
    const Tensor host = on_host(labels);
    const auto* data = static_cast<const std::int64_t*>(host.const_data_ptr());
    for (std::int64_t i = 0; i < host.numel(); ++i) {
        if (data[i] < 0 || data[i] >= classes) return data[i];
    }
    return std::nullopt;
}

}  // namespace minicnn

#include "../host/bindings.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    minicnn::bind(module);
    module.def("set_tf32", [](bool on) { minicnn::cuda::allow_tf32 = on; });
    module.def("tf32", [] { return minicnn::cuda::allow_tf32.load(); });
#if defined(MINICNN_CUDA_EMULATION)
    module.attr("emulated") = true;
#else
    module.attr("emulated") = false;
#endif
}
