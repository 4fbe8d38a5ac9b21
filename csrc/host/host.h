// The host side of every operation, compiled into the CPU module and into the CUDA module: check the
// arguments, allocate the results, choose the dtype, run the kernel without the GIL.  This header has
// the means for that.  One header a subject has the operations (conv2d.h, pool.h, ...), and bindings.h
// collects them.
//
// The module.cpp that includes it first defines, in namespace minicnn, `struct Device`:
//   type                          where its arrays live
//   allocate(sizes, dtype, memory_format)
//                                 a new array there
//   Call                          a type of which an object lives as long as a call from Python; the device
//                                 of the call's first array is the device of the whole call
//   upload(data, bytes)           host memory as bytes there: on the CPU itself, else a copy, for which the
//                                 call does not wait; the memory lives until the kernel has run
//   elsewhere(tensor)             the call's device if this tensor lives on another one, else nullopt
//   wrong_label(labels, classes, ignored)
//                                 a label that is neither in [0, classes) nor ignored if there is one, else
//                                 nullopt
#pragma once

#include <new>
#include <optional>
#include <vector>

#include "../ops.h"
#include "offer.h"
#include "shapes.h"

namespace minicnn {

constexpr at::MemoryFormat channels_last = at::MemoryFormat::ChannelsLast;

inline at::MemoryFormat memory_format(std::size_t dimensions) {
    return dimensions == 4 ? channels_last : at::MemoryFormat::Contiguous;
}

// Runs f.  The only way in which it can fail is that there is not enough memory.
template <typename F>
auto or_out_of_memory(F f) {
    try {
        return f();
    } catch (const c10::Error&) {
        throw std::bad_alloc();
    }
}

// ---- arrays in -----------------------------------------------------------------------------------

// More than any memory holds, and so few that kernels can multiply them by the size of a window.  A size of
// 0 counts as 1: an array without elements may have other sizes that are too large, and kernels multiply
// them.
constexpr int most_elements_log2 = 48;

inline void check_count(const char* op, Name name, c10::IntArrayRef sizes) {
    Wide count = 1;
    for (const std::int64_t size : sizes) {
        count *= std::max<std::int64_t>(size, 1);
        if (count >= Wide{1} << most_elements_log2) {
            fail(op, name, "fewer than 2**" + std::to_string(most_elements_log2) + " elements",
                 "shape " + repr(sizes));
        }
    }
}

// Whether this is a tensor by its type.  THPVariable_Check asks __class__, which a mock can forge.
inline bool is_tensor(PyObject* object) {
    return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

// Raises the contract's error unless all values of a tensor lie in its own storage.  Those of a fake
// tensor, of one under a functorch transform, or of a subclass with a dispatch of its own lie elsewhere, if
// anywhere; a storage can be shrunk under a tensor.
inline void check_memory(const char* op, Name name, const Tensor& t, const char* type) {
    const c10::DispatchKeySet plain(
        {c10::DispatchKey::CPU, c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCPU,
         c10::DispatchKey::AutogradCUDA, c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA,
         c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::Negative, c10::DispatchKey::Conjugate});
    if (!plain.isSupersetOf(t.key_set())) {
        fail(op, name, "a tensor with its values in memory",
             std::string(type) + " (" + c10::toString((t.key_set() - plain).highestPriorityTypeId()) + ")");
    }
    check_count(op, name, t.sizes());
    if (t.numel() == 0) return;
    Wide last = t.storage_offset();
    for (std::int64_t i = 0; i < t.dim(); ++i) last += Wide{t.size(i) - 1} * t.stride(i);
    const Wide needed = (last + 1) * Wide(t.itemsize());
    if (needed > Wide(t.storage().nbytes())) {
        fail(op, name, "a storage of at least " + std::to_string(std::int64_t(needed)) + " bytes",
             std::to_string(t.storage().nbytes()));
    }
}

// Raises the contract's error if torch's autograd would have to record what is computed of the tensor: its
// gradient would be lost without a word.
inline void check_not_recorded(const char* op, Name name, const Tensor& t) {
    if (t.requires_grad() && at::GradMode::is_enabled()) {
        fail(op, name,
             "a tensor without gradient (use minicnn.torch or torch.no_grad(): this operation is not "
             "recorded by autograd)",
             "requires_grad=True");
    }
}

// The tensor of an argument: one of this module's device whose values lie in memory.
inline const Tensor& tensor(const char* op, Name name, Array array) {
    if (!is_tensor(array.object)) {
        fail(op, name, "a torch.Tensor", array.given() ? Py_TYPE(array.object)->tp_name : "None");
    }
    const Tensor& t = THPVariable_Unpack(array.object);
    if (t.device().type() != Device::type) {
        fail(op, name, "device " + c10::DeviceTypeName(Device::type, true), t.device().str());
    }
    if (const auto device = Device::elsewhere(t))
        fail(op, name, "device " + device->str(), t.device().str());
    if (t.layout() != at::kStrided || !t.has_storage()) fail(op, name, "a dense tensor", t.toString());
    check_memory(op, name, t, Py_TYPE(array.object)->tp_name);
    check_not_recorded(op, name, t);
    return t;
}

// The tensor of an argument that may be None: undefined then.
inline Tensor optional_tensor(const char* op, Name name, Array array) {
    return array.given() ? tensor(op, name, array) : Tensor();
}

inline bool is_arranged(const Tensor& t) { return t.is_contiguous(memory_format(t.dim())) && !t.is_neg(); }

// The same values in the memory order that kernels expect: 4-D arrays channels-last, all others row-major.
inline Tensor arranged(const Tensor& t) {
    if (!t.defined() || is_arranged(t)) return t;
    const at::NoGradGuard no_grad;
    return or_out_of_memory([&] { return t.resolve_neg().contiguous(memory_format(t.dim())); });
}

inline void check_in_place(const char* op, Name name, const Tensor& t) {
    if (at::has_internal_overlap(t) == at::MemOverlap::Yes) {
        fail(op, name, "an array that can be changed in place", "one whose elements share memory");
    }
}

// A tensor that a kernel changes in place.  If its memory order is not the kernels', the kernel changes a
// copy, and finish() copies the result back.  Either way torch learns of the change, so that its autograd
// refuses to use a tensor that it saved before.
class InPlace {
  public:
    explicit InPlace(const Tensor& target) : target_(target), work_(arranged(target)) {}
    const Tensor& get() const { return work_; }
    void finish() const {
        if (!work_.is_same(target_)) {
            const at::NoGradGuard no_grad;
            target_.copy_(work_);
        } else if (target_.defined() && !target_.is_inference()) {  // an inference tensor has no version
            target_.unsafeGetTensorImpl()->bump_version();
        }
    }

  private:
    Tensor target_, work_;
};

// ---- arrays out ----------------------------------------------------------------------------------

inline Tensor empty(const char* op, Name name, c10::IntArrayRef sizes, at::ScalarType dtype) {
    check_count(op, name, sizes);
    return or_out_of_memory([&] { return Device::allocate(sizes, dtype, memory_format(sizes.size())); });
}

inline Tensor empty_like(const char* op, Name name, const Tensor& x) {
    return empty(op, name, x.sizes(), x.scalar_type());
}

// As above if the array is wanted.  Otherwise an undefined tensor, which Python sees as None.
inline Tensor empty_if(bool wanted, const char* op, Name name, c10::IntArrayRef sizes,
                       at::ScalarType dtype) {
    return wanted ? empty(op, name, sizes, dtype) : Tensor();
}

// ---- kernels -------------------------------------------------------------------------------------

// The data of an arranged tensor, or nullptr for an undefined one: read with in(), written with out().
template <typename T>
const T* in(const Tensor& t) {
    return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}

template <typename T>
T* out(const Tensor& t) {
    return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

// Calls body(float()) or body(double()), whichever is x's dtype, without the GIL.
template <typename Body>
auto run_on_floats(const Tensor& x, const Body& body) {
    const py::gil_scoped_release release;
    return x.scalar_type() == at::kFloat ? body(float()) : body(double());
}

// The same for the operations that take bfloat16, too.
template <typename Body>
auto run(const Tensor& x, const Body& body) {
    if (x.scalar_type() != at::kBFloat16) return run_on_floats(x, body);
    const py::gil_scoped_release release;
    return body(bfloat16());
}

inline ImageShape image_shape(c10::IntArrayRef sizes) { return {sizes[0], sizes[1], sizes[2], sizes[3]}; }

}  // namespace minicnn

namespace minicnn::host {

// Which gradients are wanted.
struct Need {
    bool dx, dw, db;
};

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // dx, dw, db; those not wanted are undefined
using Fused = std::pair<Tensor, Tensor>;               // y, and the one array that backward needs
using FusedMany = std::pair<Tensor, py::object>;       // y, and the tuple that backward needs, or None

}  // namespace minicnn::host
