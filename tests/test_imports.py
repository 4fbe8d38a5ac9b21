"""Who imports whom: no cycles, a library that knows no application, heavy packages only when needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minicnn
from minicnn import train

PACKAGE = Path(minicnn.__file__).parent

ENTRY_POINTS = {
    "minicnn.__main__", "minicnn.train", "minicnn.evaluate", "minicnn.predict", "minicnn.mislabels",
    "minicnn.preview", "minicnn.doctor", "minicnn.verify", "minicnn.export", "minicnn.look",
    "minicnn.testing.grade",
}  # fmt: skip
"""The modules outside `minicnn.app` that belong to the application."""

HEAVY = {
    "torch", "torchvision", "sklearn", "matplotlib", "scipy", "PIL", "rich", "safetensors", "threadpoolctl",
    "filelock", "pyarrow", "onnx", "onnxruntime", "openvino", "jinja2", "tensorboardX",
}  # fmt: skip
"""Packages that take long to import, or that may be missing."""

IMPORTED_AT_ONCE = {
    "minicnn.app.console": {"rich"},
    "minicnn.app.progress": {"rich"},
    "minicnn.app.report": {"rich"},
    "minicnn.backends.recorded": {"torch"},
    "minicnn.data.depth": {"PIL"},
    "minicnn.data.images": {"PIL"},
    "minicnn.data.resize": {"PIL"},
    "minicnn.distributed.torch_group": {"torch"},
    "minicnn.torch_reference": {"torch"},
    "minicnn.torch_program": {"torch"},
    "minicnn.torch_tracing": {"torch"},
}
"""The modules that import heavy packages as soon as they are imported themselves, and which."""


def modules() -> dict[str, ast.Module]:
    """The package's modules by full name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["minicnn", *path.relative_to(PACKAGE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.AST, package: str = "", *, functions: bool) -> Iterator[tuple[str, list[str]]]:
    """The imports of a module, as (module, names taken from it); those for type checkers are left out.

    ``package`` is the one that a relative import starts from.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [package if node.level else "", node.module]))
            yield module, [alias.name for alias in node.names]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, package, functions=functions)


def imported_modules(tree: ast.AST, package: str = "", *, functions: bool = True) -> set[str]:
    """The modules of the package that a module imports.

    ``from minicnn.layers import Conv2d`` imports the package; ``from minicnn.layers import conv2d`` or
    ``import minicnn.layers.conv2d`` only the module, since nothing of the package's own code is asked for.
    """
    found = set()
    for module, names in imports(tree, package, functions=functions):
        if names:
            found |= {f"{module}.{name}" if f"{module}.{name}" in MODULES else module for name in names}
        else:
            found.add(module)
    return found & MODULES.keys()


def is_application(name: str) -> bool:
    return name in ENTRY_POINTS or name == "minicnn.app" or name.startswith("minicnn.app.")


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one cycle, each imported by the next; none if there is no cycle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_cycle() -> None:
    graph = {name: imported_modules(tree, name.rpartition(".")[0]) for name, tree in MODULES.items()}
    assert " → ".join(reversed(cycle(graph))) == ""


def test_a_cycle_is_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_an_import_in_a_function_counts_and_one_for_type_checkers_does_not() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import minicnn.optim\n"
        "class A:\n    def f(self):\n        if True:\n            from minicnn import trainer\n"
        "from minicnn.layers import Conv2d, dense\n"
    )
    at_once = {"minicnn.layers", "minicnn.layers.dense"}
    assert imported_modules(tree, functions=False) == at_once
    assert imported_modules(tree) == at_once | {"minicnn.trainer"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not is_application(name)))
def test_the_library_knows_no_application(name: str) -> None:
    """No command and no flag, not even inside a function; no console before something is printed."""
    assert "argparse" not in {module for module, _ in imports(MODULES[name], functions=True)}
    assert "rich" not in {module.partition(".")[0] for module, _ in imports(MODULES[name], functions=False)}
    assert [other for other in imported_modules(MODULES[name]) if is_application(other)] == []
    names = {node.id for node in ast.walk(MODULES[name]) if isinstance(node, ast.Name)}
    assert "print" not in names, "a library logs, and prints nothing"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_heavy_packages_are_imported_when_they_are_needed(name: str) -> None:
    roots = {module.partition(".")[0] for module, _ in imports(MODULES[name], functions=False)}
    if name.startswith("minicnn.torch."):
        roots.discard("torch")  # only importing this package imports torch
    assert roots & HEAVY == IMPORTED_AT_ONCE.get(name, set())


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_command_answers_without_heavy_packages(flag: str) -> None:
    code = (
        "import sys\nfrom minicnn.app.main import run_command\n"
        f"try:\n    run_command([{flag!r}], 'minicnn')\n"
        f"finally:\n    print('heavy:', sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "heavy: []\n"


@pytest.fixture(scope="module")
def prediction(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of `predict` for the checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("run")
    train.main([
        "--backend", "numpy", "--model", "lenet5", "--limit-train", "32", "--limit-test", "32",
        "--epochs", "1", "--out", str(folder),
    ])  # fmt: skip
    return ["predict", "--backend", "numpy", "--checkpoint", str(folder / "best.safetensors"),
            str(folder / "mistakes.png")]  # fmt: skip


@pytest.mark.parametrize("command", ["predict", "doctor", "doctor --json"])
def test_commands_leave_what_only_reports_need(command: str, prediction: list[str]) -> None:
    arguments = prediction if command == "predict" else command.split()
    code = (
        "import sys\nfrom minicnn.app.main import run_command\n"
        f"run_command({arguments!r}, 'minicnn')\n"
        "reports = {'sklearn', 'matplotlib', 'scipy'}\n"
        "print('heavy:', sorted(reports & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "heavy: []"


def test_the_library_imports_numpy_alone() -> None:
    code = f"import sys, minicnn\nprint(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
