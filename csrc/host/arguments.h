// Arguments as Python passes them.
//
// pybind11 turns an argument into one of the types below by its "caster" at the end of this file.  The
// casters of Array, Ints, Int, Number, Flag, Word and Saved accept anything.  A wrong argument then reaches
// the contract's own check, in the contract's order and with its words; pybind11 would otherwise refuse it
// with a TypeError of its own.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "torch_headers.h"

namespace minicnn {

namespace py = pybind11;

// Something that should be an array, or None.  Like the types below it does not own the object: the
// caller's reference keeps it alive during the call.
struct Array {
    PyObject* object = nullptr;
    bool given() const { return object != Py_None; }
};

// Something that should be a sequence of arrays.
struct Arrays {
    PyObject* items = nullptr;  // a list or tuple
    std::int64_t size() const { return PySequence_Fast_GET_SIZE(items); }
    Array operator[](std::int64_t i) const { return {PySequence_Fast_GET_ITEM(items, i)}; }
};

// Something that should be a sequence of integers: a pair, or a shape.
struct Ints {
    PyObject* source = nullptr;
    c10::SmallVector<std::int64_t, 5> values;
    bool valid = false;
    std::int64_t operator[](std::size_t i) const { return values[i]; }
};

// Something that should be an integer.
struct Int {
    PyObject* source = nullptr;
    std::int64_t value = 0;
    bool valid = false;
};

// Something that should be one of a few words.
struct Word {
    PyObject* source = nullptr;
    bool is(const char* word) const {
        return PyUnicode_Check(source) && PyUnicode_CompareWithASCIIString(source, word) == 0;
    }
};

// Something that should be a number.
struct Number {
    PyObject* source = nullptr;
    double value = 0;
    bool valid = false;
};

// Something that should be True or False.
struct Flag {
    PyObject* source = nullptr;
    bool value = false;
    bool valid = false;
};

// The attributes of a convolution: base.py's named tuple of the same name.
struct Conv {
    Ints stride, padding, dilation;
    Int groups;
};

// The attributes of a max-pool: base.py's named tuple of the same name.
struct Pool {
    Ints kernel_size, stride, padding, dilation;
    Flag ceil_mode;
};

// The name of an argument, or of one array of a list.
struct Name {
    const char* text;
    std::int64_t index = -1;
    Name(const char* name) : text(name) {}
    Name(const char* name, std::int64_t i) : text(name), index(i) {}
    std::string str() const { return index < 0 ? text : text + ("[" + std::to_string(index) + "]"); }
};

// The one error of the contract.  Python sees it as a ValueError (offer.h).
[[noreturn]] inline void fail(const char* op, Name name, const std::string& expected,
                              const std::string& got) {
    throw std::invalid_argument("[" + std::string(op) + "] " + name.str() + ": expected " + expected +
                                ", got " + got);
}

// What a fused operation's forward pass kept for its backward pass, where that is more than one array: a
// tuple, if it is what it should be.
struct Saved {
    PyObject* object = nullptr;
    bool has_size(std::int64_t count) const {
        return PyTuple_Check(object) && PyTuple_GET_SIZE(object) == count;
    }
    PyObject* item(std::int64_t i) const { return PyTuple_GET_ITEM(object, i); }
    Array operator[](std::int64_t i) const { return {item(i)}; }
    // Whether it has this many items, and the first one is this word.
    bool is(const char* kind, std::int64_t count) const {
        return has_size(count) && PyUnicode_Check(item(0)) &&
               PyUnicode_CompareWithASCIIString(item(0), kind) == 0;
    }
    void check_size(const char* op, std::int64_t count) const {
        if (!has_size(count)) refuse(op);
    }
    [[noreturn]] void refuse(const char* op) const {
        const std::string got = PyTuple_Check(object) ? "another tuple"
                                : object == Py_None   ? "None"
                                                      : Py_TYPE(object)->tp_name;
        fail(op, "saved", "what the forward pass saved", got);
    }
};

// As Python prints a tuple.
inline std::string repr(c10::IntArrayRef values) {
    std::string text = "(";
    for (std::size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
    return text + (values.size() == 1 ? ",)" : ")");
}

// Only lists and tuples count as sequences.  An array is one for Python, too; if somebody passes an array
// where a list of arrays belongs, iterating over it would silently take its rows for the arrays.
inline bool is_sequence(PyObject* source) { return PyTuple_Check(source) || PyList_Check(source); }

inline std::string repr(const Ints& ints) {
    if (!is_sequence(ints.source)) return Py_TYPE(ints.source)->tp_name;
    return py::repr(py::reinterpret_steal<py::object>(PySequence_Tuple(ints.source)));
}

inline std::string repr(PyObject* source) { return py::repr(source); }

// A value in an error's one line: an array by the name of its type, all else as Python prints it.
inline std::string shown(PyObject* source) {
    PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(source));
    if (PyObject_HasAttrString(type, "__array__") && PyObject_HasAttrString(type, "__len__")) {
        return py::str(py::handle(type).attr("__name__"));
    }
    return repr(source);
}

inline double number(const char* op, Name name, const Number& given) {
    if (!given.valid) fail(op, name, "a number", shown(given.source));
    return given.value;
}

inline double fraction(const char* op, Name name, const Number& given) {
    const double value = number(op, name, given);
    if (!(value >= 0.0 && value <= 1.0)) fail(op, name, "a number from 0 to 1", shown(given.source));
    return value;
}

inline double below_1(const char* op, Name name, const Number& given) {
    const double value = number(op, name, given);
    if (!(value >= 0.0 && value < 1.0)) {
        fail(op, name, "a number from 0 to below 1", shown(given.source));
    }
    return value;
}

inline std::int64_t at_least_1(const char* op, Name name, const Int& given) {
    if (!given.valid || given.value < 1) {
        fail(op, name, "an integer of at least 1", shown(given.source));
    }
    return given.value;
}

inline bool flag(const char* op, Name name, const Flag& given) {
    if (!given.valid) fail(op, name, "True or False", shown(given.source));
    return given.value;
}

// PyNumber_Index refuses floats and accepts NumPy's integers.
inline bool read_int(PyObject* source, std::int64_t& value) {
    const py::object integer = py::reinterpret_steal<py::object>(PyNumber_Index(source));
    value = integer ? PyLong_AsLongLong(integer.ptr()) : -1;
    const bool valid = value != -1 || !PyErr_Occurred();
    PyErr_Clear();
    return valid;
}

// True or False of Python's or NumPy's.
inline bool is_bool(PyObject* source) {
    const std::string type = Py_TYPE(source)->tp_name;
    return PyBool_Check(source) || type == "numpy.bool" || type == "numpy.bool_";
}

inline bool read_number(PyObject* source, double& value) {
    if (is_bool(source)) return false;
    value = PyFloat_AsDouble(source);
    const bool valid = value != -1 || !PyErr_Occurred();
    PyErr_Clear();
    return valid;
}

inline void read(PyObject* source, Int& integer) {
    integer.source = source;
    integer.valid = read_int(source, integer.value);
}

inline void read(PyObject* source, Number& number) {
    number.source = source;
    number.valid = read_number(source, number.value);
}

inline void read(PyObject* source, Flag& flag) {
    flag.source = source;
    flag.valid = is_bool(source);
    flag.value = flag.valid && PyObject_IsTrue(source) == 1;
}

inline void read(PyObject* source, Ints& ints) {
    ints.source = source;
    if (!is_sequence(source)) return;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(source); ++i) {
        std::int64_t value;
        if (!read_int(PySequence_Fast_GET_ITEM(source, i), value)) return;
        ints.values.push_back(value);
    }
    ints.valid = true;
}

}  // namespace minicnn

namespace pybind11::detail {

template <>
struct type_caster<minicnn::Array> {
    PYBIND11_TYPE_CASTER(minicnn::Array, const_name("array"));
    bool load(handle source, bool) {
        value.object = source.ptr();
        return true;
    }
};

template <>
struct type_caster<minicnn::Arrays> {
    PYBIND11_TYPE_CASTER(minicnn::Arrays, const_name("list of arrays"));
    bool load(handle source, bool) {
        value.items = source.ptr();
        return minicnn::is_sequence(source.ptr());
    }
};

template <>
struct type_caster<minicnn::Ints> {
    PYBIND11_TYPE_CASTER(minicnn::Ints, const_name("sequence of integers"));
    bool load(handle source, bool) {
        minicnn::read(source.ptr(), value);
        return true;
    }
};

template <>
struct type_caster<minicnn::Saved> {
    PYBIND11_TYPE_CASTER(minicnn::Saved, const_name("saved"));
    bool load(handle source, bool) {
        value.object = source.ptr();
        return true;
    }
};

template <>
struct type_caster<minicnn::Word> {
    PYBIND11_TYPE_CASTER(minicnn::Word, const_name("str"));
    bool load(handle source, bool) {
        value.source = source.ptr();
        return true;
    }
};

template <>
struct type_caster<minicnn::Int> {
    PYBIND11_TYPE_CASTER(minicnn::Int, const_name("integer"));
    bool load(handle source, bool) {
        minicnn::read(source.ptr(), value);
        return true;
    }
};

template <>
struct type_caster<minicnn::Number> {
    PYBIND11_TYPE_CASTER(minicnn::Number, const_name("number"));
    bool load(handle source, bool) {
        minicnn::read(source.ptr(), value);
        return true;
    }
};

template <>
struct type_caster<minicnn::Flag> {
    PYBIND11_TYPE_CASTER(minicnn::Flag, const_name("bool"));
    bool load(handle source, bool) {
        minicnn::read(source.ptr(), value);
        return true;
    }
};

template <>
struct type_caster<minicnn::Conv> {
    PYBIND11_TYPE_CASTER(minicnn::Conv, const_name("Conv"));
    bool load(handle source, bool) {
        if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != 4) return false;
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 0), value.stride);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 1), value.padding);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 2), value.dilation);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 3), value.groups);
        return true;
    }
};

template <>
struct type_caster<minicnn::Pool> {
    PYBIND11_TYPE_CASTER(minicnn::Pool, const_name("Pool"));
    bool load(handle source, bool) {
        if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != 5) return false;
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 0), value.kernel_size);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 1), value.stride);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 2), value.padding);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 3), value.dilation);
        minicnn::read(PyTuple_GET_ITEM(source.ptr(), 4), value.ceil_mode);
        return true;
    }
};

}  // namespace pybind11::detail
