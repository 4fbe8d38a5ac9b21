"""Builds my_extension/_C.so.  What is built belongs to the torch that it was built with.

pip install --no-build-isolation .
"""

import os
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

flags = os.environ.get("MY_EXTENSION_CXXFLAGS", "-O3").split()
extension = CppExtension("my_extension._C", ["csrc/hard_swish.cpp"], extra_compile_args=flags)
os.chdir(Path(__file__).parent)
setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
