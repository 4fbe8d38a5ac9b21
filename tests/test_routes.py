"""Which way each pass of a convolution goes on the CPU: the router's choice for the layers of the benchmark
nets, and on both sides of each of its thresholds.

The router is compiled alone, with a small program that prints its choices.  The estimate that chooses
Winograd's way counts vectors, so the table holds for vectors of 32 bytes.  The file of the table names the
ways in this order: forward, gradient to the input, gradient to the filters; then the same three with a 2x2
max-pool fused.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minicnn.backends import compiler

ROOT = Path(__file__).resolve().parent.parent
CPU = ROOT / "csrc" / "cpu"
TABLE = ROOT / "tests" / "data" / "routes.txt"
LAYER = re.compile(
    r"(?P<images>[\d,]+)  +(?P<C>\d+)->(?P<F>\d+) (?P<H>\d+)x(?P<W>\d+) (?P<KH>\d+)x(?P<KW>\d+)"
    r"(?: stride (?P<stride>\d+))?(?: pad (?P<pad>\d+))?  +(?P<ways>.*)"
)
PASSES = (
    "forward",
    "data",
    "weight",
    "pooled forward",
    "pooled data",
    "pooled weight",
    "training",
    "evaluation",
    "session",
    "pooled session",
)

Router = Callable[..., list[dict[str, str]]]


def shape(**values: int) -> dict[str, int]:
    """A shape of tests/csrc/routes.cpp: by default eight images, 3x3 filters, float32 and a 2x2 pool."""
    default = {
        "N": 8, "C": 64, "H": 16, "W": 16, "F": 64, "KH": 3, "KW": 3, "stride": 1, "pad": 1,
        "dilation": 1, "groups": 1, "bytes": 4, "pool": 2, "pool_stride": 2, "pool_pad": 0,
    }  # fmt: skip
    assert values.keys() <= default.keys()
    return default | values


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Router:
    """The router, which answers for each shape with the way of each pass."""
    command = compiler.command()
    if command is None or platform.machine() != "x86_64" or "avx2" not in compiler.cpu_features():
        pytest.skip("vectors of 32 bytes need an x86-64 processor with AVX2, and a compiler for it")
    program = tmp_path_factory.mktemp("routes") / "routes"
    sources = [ROOT / "tests" / "csrc" / "routes.cpp", CPU / "conv2d" / "route.cpp"]
    subprocess.run([*command, "-std=c++17", "-mavx2", "-mfma", "-o", program, *sources], check=True)

    def ways(shapes: list[dict[str, int]], winograd: str = "1") -> list[dict[str, str]]:
        lines = "\n".join(" ".join(map(str, s.values())) for s in shapes)
        done = subprocess.run(
            [program], input=lines, check=True, capture_output=True, text=True,
            env={**os.environ, "MINICNN_WINOGRAD": winograd},
        )  # fmt: skip
        rows = [line.split() for line in done.stdout.splitlines()]
        assert len(rows) == len(shapes)
        return [dict(zip(PASSES, row, strict=True)) for row in rows]

    return ways


def layers() -> list[tuple[str, dict[str, int], list[str]]]:
    """The rows of the table, one for each number of images: the row's text, the shape, the ways."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line.startswith("#"):
            continue
        match = LAYER.fullmatch(line)
        assert match is not None, line
        numbers = {
            k: int(v) for k, v in match.groupdict(default="").items() if v.isdecimal() and k != "images"
        }
        numbers = {"pad": 0} | numbers
        for images in match["images"].split(","):
            found.append(
                (f"{images} images: {line}", shape(N=int(images), **numbers), match["ways"].split())
            )
    return found


def test_layers_of_the_benchmark_nets(router: Router) -> None:
    rows = layers()
    assert len(rows) > 200
    answers = router([s for _, s, _ in rows])
    wrong = [
        (text, list(answer.values())[:6])
        for (text, _, ways), answer in zip(rows, answers, strict=True)
        if list(answer.values())[:6] != ways
    ]
    assert wrong == []


# A shape, a pass of it, and the expected way.
BORDERS = [
    # depthwise: as many groups as channels and filters, and more than one
    (shape(C=32, F=32, groups=32), "forward", "depthwise_tiles"),
    (shape(C=32, F=32, groups=32), "data", "depthwise"),
    (shape(C=32, F=32, groups=32), "weight", "depthwise"),
    (shape(C=32, F=32, groups=32), "pooled forward", "tiles"),
    (shape(C=32, F=64, groups=32), "forward", "direct"),
    (shape(C=32, F=64, groups=32), "data", "direct"),
    (shape(C=1, F=1), "forward", "direct"),
    # depthwise_tiles: float, filters 3 or 5 wide at a stride of 1 or 2, at least one vector of channels
    (shape(C=8, F=8, groups=8), "forward", "depthwise_tiles"),
    (shape(C=7, F=7, groups=7), "forward", "depthwise"),
    (shape(C=8, F=8, groups=8, bytes=8), "forward", "depthwise"),
    (shape(C=8, F=8, groups=8, KH=7, KW=5), "forward", "depthwise_tiles"),
    (shape(C=8, F=8, groups=8, KW=7, pad=3), "forward", "depthwise"),
    (shape(C=8, F=8, groups=8, stride=2), "forward", "depthwise_tiles"),
    (shape(C=8, F=8, groups=8, stride=3), "forward", "depthwise"),
    (shape(C=8, F=8, groups=8, dilation=2), "forward", "depthwise"),
    # Winograd: float, 3x3, stride and dilation 1, one group, at least 16 channels on both sides
    (shape(), "forward", "winograd"),
    (shape(bytes=8), "forward", "direct"),
    (shape(KH=5, pad=2), "forward", "direct"),
    (shape(stride=2), "forward", "direct"),
    (shape(dilation=2), "forward", "direct"),
    (shape(groups=2), "forward", "direct"),
    (shape(C=16, F=16), "data", "winograd"),
    (shape(C=15, F=16), "data", "direct"),
    (shape(C=16, F=15), "data", "direct"),
    # Winograd's estimate: the filters' transforms need enough tiles to repay them
    (shape(N=32, C=256, F=256, H=4, W=4), "weight", "winograd"),
    (shape(N=8, C=256, F=256, H=4, W=4), "weight", "direct"),
    # columns: rows of at most three pixels, and enough channels
    (shape(C=8, F=32, W=3), "forward", "columns"),
    (shape(C=8, F=32, W=4), "forward", "direct"),
    (shape(C=7, F=32, W=3), "forward", "direct"),
    (shape(C=8, F=31, W=3), "forward", "direct"),
    (shape(C=8, F=32, W=3, groups=2), "forward", "direct"),
    # or at most 32 pixels altogether
    (shape(C=8, F=32, H=8, W=4, N=1), "forward", "columns"),
    (shape(C=8, F=32, H=8, W=4, N=2), "forward", "direct"),
    (shape(C=8, F=32, H=3, W=11, N=1), "forward", "direct"),
    # filters that are ready: fewer tiles repay them, unless they come from memory
    (shape(N=1, H=8, W=8), "forward", "direct"),
    (shape(N=1, H=8, W=8), "session", "winograd"),
    (shape(N=1, H=8, W=8), "pooled session", "winograd"),
    (shape(N=1, H=8, W=8, C=128, F=128), "session", "direct"),
    (shape(N=1, H=8, W=8, C=128, F=128), "pooled session", "tiles"),
    (shape(C=8, F=16, W=3), "data", "columns"),
    (shape(C=8, F=15, W=3), "data", "direct"),
    (shape(C=8, F=16, W=3), "weight", "columns"),
    (shape(C=8, F=15, W=3), "weight", "direct"),
    # columns for the gradient to the input where the output is less than two thirds of it
    (shape(KH=5, KW=5, pad=0, H=13, W=13), "data", "columns"),
    (shape(KH=3, KW=3, bytes=8, pad=0, H=12, W=12), "data", "direct"),
    # the matrix of columns holds 8 MB: one image of the forward pass, the whole batch for the filters
    (shape(KH=5, KW=5, pad=0, C=64, H=436, W=7), "forward", "columns"),
    (shape(KH=5, KW=5, pad=0, C=64, H=442, W=7), "forward", "direct"),
    (shape(KH=5, KW=5, pad=0, C=64, H=10, W=7, N=72), "weight", "columns"),
    (shape(KH=5, KW=5, pad=0, C=64, H=10, W=7, N=73), "weight", "direct"),
    # fused with a pool: 2x2 windows inside the map are pooled in the tiles, others from bands of the map
    (shape(C=3), "pooled forward", "tiles"),
    (shape(C=3, pool=3), "pooled forward", "bands"),
    (shape(pool=3), "pooled forward", "bands"),
    (shape(pool=3), "pooled data", "sparse"),
    (shape(C=3, pool=3), "pooled weight", "sparse"),
    (shape(pool_stride=1), "pooled weight", "sparse"),
    (shape(pool_pad=1), "pooled data", "sparse"),
    (shape(), "pooled forward", "winograd"),
    (shape(), "pooled data", "winograd"),
    (shape(), "pooled weight", "winograd"),
    (shape(bytes=8), "pooled weight", "sparse"),
    # unpooled: filters of at most 32 values, at least one vector of them
    (shape(C=2, KH=4, KW=4), "pooled weight", "unpooled"),
    (shape(C=33, KH=1, KW=1, pad=0), "pooled weight", "sparse"),
    (shape(C=3, F=8), "pooled weight", "unpooled"),
    (shape(C=3, F=7), "pooled weight", "sparse"),
    (shape(C=3, F=4, bytes=8), "pooled weight", "unpooled"),
    # fused at all: a winner's place is a byte, and overlapping windows gain in training alone
    (shape(), "training", "fused"),
    (shape(), "evaluation", "fused"),
    (shape(pool_stride=1), "training", "fused"),
    (shape(pool_stride=1), "evaluation", "apart"),
    (shape(H=32, W=32, pool=15, pool_stride=15), "training", "fused"),
    (shape(H=32, W=32, pool=16, pool_stride=16), "training", "apart"),
    # offsets into the five rows that a pooled row reads, and into all filters, are kept in 32 bits
    (shape(W=6710881), "training", "fused"),
    (shape(W=6710882), "training", "apart"),
    (shape(F=65536, C=32759, KH=1, KW=1, pad=0), "training", "fused"),
    (shape(F=65536, C=32760, KH=1, KW=1, pad=0), "training", "apart"),
]  # fmt: skip


def test_borders(router: Router) -> None:
    answers = router([s for s, _, _ in BORDERS])
    wrong = [
        (s, name, answer[name], expected)
        for (s, name, expected), answer in zip(BORDERS, answers, strict=True)
        if answer[name] != expected
    ]
    assert wrong == []


def test_winograd_is_chosen_for_nothing_where_it_is_turned_off(router: Router) -> None:
    shapes = [s for _, s, _ in layers()]
    without = router(shapes, winograd="0")
    assert "winograd" not in {way for ways in without for way in ways.values()}
    for with_it, ways in zip(router(shapes), without, strict=True):
        for name, way in with_it.items():
            assert way in (ways[name], "winograd")


# ---- the rooms of csrc/cpu -----------------------------------------------------------------------------


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include "(.*)"', path.read_text(), re.MULTILINE)


def test_general_code_includes_nothing_of_convolution() -> None:
    files = sorted((CPU / "core").iterdir())
    assert len(files) > 10
    outside = [
        (file.name, name) for file in files for name in includes(file) if not (CPU / "core" / name).exists()
    ]
    assert outside == []
    assert [file.name for file in files if "conv2d" in file.read_text()] == []


def test_object_files_have_names_of_their_own() -> None:
    """They share one folder in a build."""
    stems = [path.stem for path in CPU.rglob("*.cpp")]
    assert sorted(set(stems)) == sorted(stems)
