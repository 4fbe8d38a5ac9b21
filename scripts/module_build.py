"""Builds a module of the checkout that it runs in, and compiles only the files that have changed.

python -m scripts.module_build cpp|cuda|nvcc FOLDER     FOLDER keeps the object files; cuda is emulated

The compilers' output is shown.
"""

from __future__ import annotations

import shutil
import sys

from torch.utils import cpp_extension

from minicnn.backends import build, cuda_build, module_cache, module_file

MODULES = {"cpp": build.CPU, "cuda": cuda_build.EMULATED, "nvcc": cuda_build.CUDA}


def main(backend: str, folder: str) -> None:
    """Build in the folder, and copy the module to where `minicnn.backends.build` looks for it."""
    spec = MODULES[backend]
    target = build.cached_path(spec)
    built = cpp_extension.load(
        name=spec.stem, sources=[str(path) for path in spec.sources()], build_directory=folder,
        is_python_module=False, verbose=True, **spec.load_options(),
    )  # fmt: skip
    module_cache.prepare(target.parent)
    aside = target.with_suffix(".new")
    shutil.copyfile(built, aside)
    module_file.stamp(aside, module_file.description(spec))
    module_cache.keep(aside, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
