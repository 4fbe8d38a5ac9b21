// The CPU module: what it is called, and whose threads it uses.

#include "../host/cpu_device.h"

namespace minicnn {
using Device = CpuDevice;
}

// bindings.h needs the Device that is defined above.
#include "../host/bindings.h"
#include "core/parallel.h"
#include "session/session_module.h"

namespace minicnn {

int num_threads() { return at::get_num_threads(); }

void run_on_threads(int count, void (*body)(void*, int), void* context) {
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) body(context, static_cast<int>(i));
    });
}

}  // namespace minicnn

PYBIND11_MODULE(_cpu, module) {
    minicnn::bind(module);
    minicnn::offer_session(module);
}
