// The CPU module: what it is called, and whose threads it uses.

#include <atomic>

#include "../host/cpu_device.h"

namespace minicnn {
using Device = CpuDevice;
}

// bindings.h needs the Device that is defined above.
#include "../host/bindings.h"
#include "core/helpers.h"
#include "core/parallel.h"
#include "session/session_module.h"

namespace minicnn {

int num_threads() { return at::get_num_threads(); }

// Threads of torch wait for work actively for a long time after each of torch's operations, and would keep
// helpers from the processor.  So a program that computes with torch, too, lets kernels use torch's.
static std::atomic<bool> use_torch_threads{false};

void run_on_threads(int count, void (*body)(void*, int), void* context) {
    if (!use_torch_threads) return run_with_helpers(count, body, context);
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) body(context, static_cast<int>(i));
    });
}

void rouse_threads(int count) {
    if (!use_torch_threads) rouse_helpers(count);
}

}  // namespace minicnn

PYBIND11_MODULE(_cpu, module) {
    minicnn::bind(module);
    minicnn::offer_session(module);
    module.def("use_torch_threads", [](bool wanted) { minicnn::use_torch_threads = wanted; });
    module.def(
        "measure_waking",
        [] {
            const minicnn::Waking waking = minicnn::measure_waking();
            return std::pair(waking.call, waking.delay);
        },
        pybind11::call_guard<pybind11::gil_scoped_release>());
}
