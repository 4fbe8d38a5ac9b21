// Checks, allocation and the choice of dtype, once for both kinds of kernels, and the Python names.

#include <stdexcept>

#include "hard_swish.cu"  // through the emulation: the host compiler builds it here
#include "hard_swish.h"
#include "host/torch_headers.h"

namespace example {
namespace {

at::Tensor tensor(const pybind11::handle& object, const char* name) {
    if (!THPVariable_Check(object.ptr())) {
        throw pybind11::type_error(std::string("[hard_swish] ") + name + ": expected a tensor");
    }
    const at::Tensor t = THPVariable_Unpack(object.ptr());
    if (t.scalar_type() != at::kFloat && t.scalar_type() != at::kDouble) {
        throw std::invalid_argument(std::string("[hard_swish] ") + name + ": expected float32 or float64");
    }
    return t.contiguous();
}

template <template <typename> class Kernels>
pybind11::object forward(const pybind11::handle& x_) {
    const at::Tensor x = tensor(x_, "x"), y = at::empty_like(x);
    if (x.scalar_type() == at::kFloat) {
        Kernels<float>::forward(x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), x.numel());
    } else {
        Kernels<double>::forward(x.const_data_ptr<double>(), y.mutable_data_ptr<double>(), x.numel());
    }
    return pybind11::reinterpret_steal<pybind11::object>(THPVariable_Wrap(y));
}

template <template <typename> class Kernels>
pybind11::object backward(const pybind11::handle& dy_, const pybind11::handle& x_) {
    const at::Tensor dy = tensor(dy_, "dy"), x = tensor(x_, "x"), dx = at::empty_like(x);
    if (dy.sizes() != x.sizes() || dy.scalar_type() != x.scalar_type()) {
        throw std::invalid_argument("[hard_swish] dy: expected the shape and dtype of x");
    }
    if (x.scalar_type() == at::kFloat) {
        Kernels<float>::backward(dy.const_data_ptr<float>(), x.const_data_ptr<float>(),
                                 dx.mutable_data_ptr<float>(), x.numel());
    } else {
        Kernels<double>::backward(dy.const_data_ptr<double>(), x.const_data_ptr<double>(),
                                  dx.mutable_data_ptr<double>(), x.numel());
    }
    return pybind11::reinterpret_steal<pybind11::object>(THPVariable_Wrap(dx));
}

}  // namespace
}  // namespace example

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("cpp_forward", &example::forward<example::CpuKernels>);
    m.def("cpp_backward", &example::backward<example::CpuKernels>);
    m.def("cuda_forward", &example::forward<example::CudaKernels>);
    m.def("cuda_backward", &example::backward<example::CudaKernels>);
}
