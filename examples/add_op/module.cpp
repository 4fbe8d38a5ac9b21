// The Python module.  It is built twice, with the C++ kernels and with the CUDA kernels on the emulation;
// the arrays of both live in the CPU's memory.  The library's own are csrc/cpu/module.cpp and
// csrc/cuda/module.cpp.

#include "host/cpu_device.h"

namespace minicnn {
using Device = CpuDevice;
}

// The host side needs the Device that is defined above.
#include "hard_swish_host.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { minicnn::host::offer_hard_swish(m); }
