// The host side of every operation, included by cpu/module.cpp and by cuda/module.cpp: check, allocate,
// dispatch on dtype, run the kernel without the GIL.  This header has the means; host_*.h have the
// operations, and bindings.h names them to Python.
//
// The including module.cpp first defines, in namespace minicnn, `struct Device`:
//   static constexpr at::DeviceType type        where its arrays live
//   static Tensor allocate(sizes, dtype, memory_format)
//   struct Call {}        lives as long as a call from Python, whose first array decides on the device
//   static std::optional<at::Device> elsewhere(const Tensor&)
//                         the call's device, if the tensor has another
//
//   static std::optional<int64_t> wrong_label(labels, classes)
//                         a label outside [0, classes), if any
#pragma once

#include <new>
#include <optional>
#include <vector>

#include "../ops.h"
#include "shapes.h"

namespace minicnn {

constexpr at::MemoryFormat channels_last = at::MemoryFormat::ChannelsLast;

inline at::MemoryFormat memory_format(std::size_t dimensions) {
    return dimensions == 4 ? channels_last : at::MemoryFormat::Contiguous;
}

// Runs f, whose only failure can be memory that is not to be had.
template <typename F>
auto or_out_of_memory(F f) {
    try {
        return f();
    } catch (const c10::Error&) {
        throw std::bad_alloc();
    }
}

// ---- arrays in -----------------------------------------------------------------------------------

// The tensor of an argument: one of this module's device whose values lie in memory.
inline const Tensor& tensor(const char* op, Name name, Array array) {
    if (!THPVariable_Check(array.object)) {
        fail(op, name, "a torch.Tensor", array.given() ? Py_TYPE(array.object)->tp_name : "None");
    }
    const Tensor& t = THPVariable_Unpack(array.object);
    if (t.device().type() != Device::type) {
        fail(op, name, "device " + c10::DeviceTypeName(Device::type, true), t.device().str());
    }
    if (const auto device = Device::elsewhere(t))
        fail(op, name, "device " + device->str(), t.device().str());
    if (t.layout() != at::kStrided || !t.has_storage()) fail(op, name, "a dense tensor", t.toString());
    return t;
}

// The tensor of an argument that may be None: undefined then.
inline Tensor optional_tensor(const char* op, Name name, Array array) {
    return array.given() ? tensor(op, name, array) : Tensor();
}

inline bool is_arranged(const Tensor& t) { return t.is_contiguous(memory_format(t.dim())) && !t.is_neg(); }

// The same values in the memory order that kernels take: images channels-last, all else row-major.
inline Tensor arranged(const Tensor& t) {
    if (!t.defined() || is_arranged(t)) return t;
    const at::NoGradGuard no_grad;
    return or_out_of_memory([&] { return t.resolve_neg().contiguous(memory_format(t.dim())); });
}

// A tensor that a kernel changes in place.  One in another memory order is changed through a copy.
class InPlace {
  public:
    explicit InPlace(const Tensor& target) : target_(target), work_(arranged(target)) {}
    const Tensor& get() const { return work_; }
    void finish() const {
        if (work_.is_same(target_)) return;
        const at::NoGradGuard no_grad;
        target_.copy_(work_);
    }

  private:
    Tensor target_, work_;
};

// ---- arrays out ----------------------------------------------------------------------------------

inline Tensor empty(const char* op, Name name, c10::IntArrayRef sizes, at::ScalarType dtype) {
    Wide count = 1;
    for (const std::int64_t size : sizes) {
        count *= size;
        if (count > std::int64_t{1} << 59)
            fail(op, name, "fewer than 2**59 elements", "shape " + repr(sizes));
    }
    return or_out_of_memory([&] { return Device::allocate(sizes, dtype, memory_format(sizes.size())); });
}

inline Tensor empty_like(const char* op, Name name, const Tensor& x) {
    return empty(op, name, x.sizes(), x.scalar_type());
}

// As above, or undefined, which becomes None.
inline Tensor empty_if(bool wanted, const char* op, Name name, c10::IntArrayRef sizes,
                       at::ScalarType dtype) {
    return wanted ? empty(op, name, sizes, dtype) : Tensor();
}

// ---- kernels -------------------------------------------------------------------------------------

// The data of an arranged tensor; nullptr for an undefined one.
template <typename T>
const T* in(const Tensor& t) {
    return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}

template <typename T>
T* out(const Tensor& t) {
    return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

// Calls body(float()) or body(double()), as x has it, without the GIL.
template <typename Body>
auto run(const Tensor& x, const Body& body) {
    const py::gil_scoped_release release;
    return x.scalar_type() == at::kFloat ? body(float()) : body(double());
}

inline ImageShape image_shape(c10::IntArrayRef sizes) { return {sizes[0], sizes[1], sizes[2], sizes[3]}; }

}  // namespace minicnn
