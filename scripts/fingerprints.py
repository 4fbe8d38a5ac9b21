"""The bits that training and prediction give on cpp: a hash for each net, to be compared across changes.

python -m scripts.fingerprints          compares this machine's hashes with the saved ones
python -m scripts.fingerprints --save   saves them, for the processor that the module was built for

A change of structure must not change a bit.  Every net of `minicnn.models` is trained for ten steps on
two or three random images, and then predicts them.  The hash is of the losses, of all weights and of the
predictions.  Bits differ by compiler and by the processor that it compiles for, so hashes are kept for
each pair of these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from minicnn import Trainer, models, optim
from minicnn.backends import compiler

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "fingerprints.json"
STEPS = 10
SIZES = {"inception_v3": 96}
"""Side of the images where it is not 32, which is too small for some nets."""


def target() -> str:
    """The compiler and the processor it compiles for, as in ``g++ 12.2.0, znver3``."""
    command = compiler.command() or ["c++"]
    flags = [flag for flag in compiler.flags() if flag.startswith(("-march", "-mcpu"))]
    shown = subprocess.run(
        [*command, *flags, "-Q", "--help=target"], capture_output=True, text=True, check=True
    ).stdout
    processor = re.search(r"-m(?:arch|cpu)=\s+(\S+)", shown)
    version = (compiler.version() or "").split(" ")
    return f"{version[0]} {version[-1]}, {processor.group(1) if processor else 'unknown'}"


def fingerprint(name: str) -> str:
    """The hash of ten steps of a net, and of its predictions after them."""
    size = SIZES.get(name, 32)
    rng = np.random.default_rng(1)
    x, y = rng.random((3, 3, size, size), np.float32), np.array([0, 1, 1])
    model = models.create(name, in_channels=3, num_classes=2, image_size=size, backend="cpp", seed=3)
    trainer = Trainer(model, optim.SGD(lr=1e-3, momentum=0.9, weight_decay=1e-4))
    digest = hashlib.sha256()
    for step in range(STEPS):
        images = 2 + step % 2
        digest.update(np.float64(trainer.step(x[:images], y[:images])).tobytes())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + np.ascontiguousarray(value).tobytes())
    digest.update(np.ascontiguousarray(model.predict(x)).tobytes())
    return digest.hexdigest()[:16]


def saved() -> dict[str, dict[str, str]]:
    """Target -> net -> hash."""
    found: dict[str, dict[str, str]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def main() -> None:
    """Compare, or save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--save", action="store_true", help="save instead of comparing")
    arguments = parser.parse_args()
    found = {}
    for name in models.names():
        found[name] = fingerprint(name)
        print(f"{name}: {found[name]}", flush=True)
    if arguments.save:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(saved() | {target(): found}, indent=1, sort_keys=True) + "\n")
        return
    expected = saved().get(target())
    if expected is None:
        sys.exit(f"no hashes are saved for {target()}")
    changed = [name for name in found if found[name] != expected.get(name)]
    sys.exit(f"other bits than saved: {', '.join(changed)}" if changed else None)


if __name__ == "__main__":
    main()
