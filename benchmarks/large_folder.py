"""Training from a folder of images that is larger than memory should hold: seconds to start, peak memory.

    python benchmarks/large_folder.py            20,000 images of 256x256
    python benchmarks/large_folder.py --images 50000 --side 224 --memory

A folder of JPEG files is generated, and deleted at the end with what was decoded from it.  Each run is a
process of its own; its peak is that of its largest process.  A start is a whole `--dry-run`, which ends
after two steps of training; reading the images is timed by itself, too, without starting Python.  With
--memory no times are kept, so that other work on the machine does no harm.  Each size has an entry in
benchmarks/results/large_folder.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from paired import load, machine, save
from PIL import Image

CLASSES = 10
MODEL, BATCH, THREADS = "lenet5", 64, 2
"""A small net, so that reading the images is most of the work."""


def generate(root: Path, count: int, side: int) -> int:
    """Write so many JPEG files, a share to each class; returns their bytes."""
    rng = np.random.default_rng(0)
    size = 0
    for number in range(count):
        name = root / f"class{number % CLASSES}" / f"{number:06}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
        coarse[: number % CLASSES] //= 2  # so that there is something to learn
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(name, quality=85)
        size += name.stat().st_size
    return size


def run(*flags: str) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one call of train."""
    command = [
        sys.executable, "-m", "minicnn.train", "--quiet", "--backend", "cpp", "--threads", str(THREADS),
        "--model", MODEL, "--batch-size", str(BATCH), *flags,
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def reading(root: Path, cache: Path) -> float:
    """Seconds of reading images that are decoded already, in a process that has imported everything."""
    program = (
        "import sys, time; from minicnn import data; start = time.perf_counter(); "
        "data.load(f'folder:{sys.argv[1]}', cache=sys.argv[2], validation=0.1); "
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", program, str(root), str(cache)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where to write the images (default: the system's)")
    parser.add_argument("--memory", action="store_true", help="keep the peaks of memory, and no times")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        root, cache = Path(place) / "images", Path(place) / "cache"
        jpeg = generate(root, args.images, args.side)
        data = ["--dataset", f"folder:{root}", "--cache", str(cache)]
        result = {
            "machine": machine(THREADS),
            "images": args.images, "side": args.side, "model": MODEL, "batch": BATCH,
            "JPEG, MB": round(jpeg / 1e6, 1),
        }  # fmt: skip
        for name, flags in (
            ("first start", ["--dry-run"]),
            ("second start", ["--dry-run"]),
            ("one epoch and test", ["--epochs", "1", "--out", str(Path(place) / "run")]),
        ):
            seconds, peak = run(*data, *flags)
            times = {} if args.memory else {"seconds": round(seconds, 2)}
            result[name] = times | {"peak, MB": round(peak)}
            print(name, result[name], flush=True)
        if not args.memory:
            result["reading on the second start, seconds"] = round(reading(root, cache), 2)
        decoded = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        result["decoded, MB"] = round(decoded / 1e6, 1)
    save("large_folder", load("large_folder") | {f"{args.images} of {args.side}x{args.side}": result})


if __name__ == "__main__":
    main()
