// The CUDA module: where its arrays live, which stream its kernels run in, and where their scratch memory
// comes from.  With MINICNN_CUDA_EMULATION arrays and scratch are in the CPU's memory, and
// csrc/cuda_emulation runs the kernels.

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "core/device.h"
#include "core/tf32.h"

#if defined(MINICNN_CUDA_EMULATION)

#include "../host/cpu_device.h"

namespace minicnn {

using emulation::Recording;

struct Device : CpuDevice {
    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        Tensor t = CpuDevice::allocate(sizes, dtype, format);
        if (Recording* recording = Recording::open()) recording->keep(std::make_shared<Tensor>(t));
        return t;
    }
};

namespace cuda {
cudaStream_t current_stream() { return nullptr; }
void* allocate_scratch(std::size_t bytes) {
    void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!data) throw std::bad_alloc();
    std::memset(data, 0xFF, bytes);  // NaN: a kernel that reads what it did not write shows
    return data;
}
void free_scratch(void* data) {
    if (Recording* recording = Recording::open()) {
        recording->keep(std::shared_ptr<void>(data, std::free));
    } else {
        std::free(data);
    }
}
}  // namespace cuda

}  // namespace minicnn

#else

#include "../host/torch_headers.h"
#include "core/torch_cuda_headers.h"

namespace minicnn {

using at::Tensor;

struct Device {
    static constexpr at::DeviceType type = at::kCUDA;

    static Tensor allocate(c10::IntArrayRef sizes, at::ScalarType dtype, at::MemoryFormat format) {
        const at::Device device(at::kCUDA, c10::cuda::current_device());
        return Tensor(at::detail::empty_cuda(sizes, dtype, device, format));
    }

    // By way of pinned memory, which torch keeps until the copy is done.
    static Tensor upload(const void* data, std::size_t bytes) {
        const auto size = static_cast<std::int64_t>(bytes);
        const Tensor pinned(at::detail::empty_cpu({size}, at::kByte, /*pin_memory=*/true));
        std::memcpy(pinned.mutable_data_ptr(), data, bytes);
        return pinned.to(at::Device(at::kCUDA, c10::cuda::current_device()), /*non_blocking=*/true);
    }

    // A call from Python.  The device of its first array is the current one until the call ends.
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

    // Waits for the device, as labels are checked before anything is computed from them.
    static std::optional<std::int64_t> wrong_label(const Tensor& labels, std::int64_t classes,
                                                   std::int64_t ignored) {
        const Tensor host = labels.to(at::kCPU);
        const auto* data = static_cast<const std::int64_t*>(host.const_data_ptr());
        for (std::int64_t i = 0; i < host.numel(); ++i) {
            if ((data[i] < 0 || data[i] >= classes) && data[i] != ignored) return data[i];
        }
        return std::nullopt;
    }
};

namespace cuda {
cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
void* allocate_scratch(std::size_t bytes) {
    return c10::cuda::CUDACachingAllocator::raw_alloc_with_stream(std::max<std::size_t>(bytes, 16),
                                                                  current_stream());
}
void free_scratch(void* data) { c10::cuda::CUDACachingAllocator::raw_delete(data); }
}  // namespace cuda

}  // namespace minicnn

#endif

// The bindings need the Device that is defined above.
#include "device_step_host.h"

#if defined(MINICNN_CUDA_EMULATION)

namespace minicnn {

// How Python records a step, and adds what torch computes in it.
inline void offer_recording(py::module_& m) {
    py::class_<Recording>(m, "Recording")
        .def(py::init<>())
        .def("begin", [](Recording& self) { Recording::open() = &self; })
        .def("end", [](Recording&) { Recording::open() = nullptr; })
        .def("call", [](Recording& self,
                        const py::function& work) { self.add([work] { return work(), std::string(); }); })
        .def("replay", [](const Recording& self) {
            if (const std::string error = self.replay(); !error.empty()) throw std::runtime_error(error);
        });
}

}  // namespace minicnn

#endif

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    minicnn::bind(module);
    minicnn::host::offer_device_step(module);
    module.def("set_tf32", [](bool on) { minicnn::cuda::allow_tf32 = on; });
    module.def("tf32", [] { return minicnn::cuda::allow_tf32.load(); });
#if defined(MINICNN_CUDA_EMULATION)
    module.attr("emulated") = true;
    minicnn::offer_recording(module);
#else
    module.attr("emulated") = false;
#endif
}
