"""What exported models are like: their sizes, and what other engines make of the test images.

    python benchmarks/exported.py [--nets simple_cnn resnet20] [--epochs 3]

Each net is trained on the bundled images, and exported in float32 and in int8 with --verify, which fails
where an engine does not predict what minicnn does.  Writes benchmarks/results/exported.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from paired import machine, save

from minicnn import data, export, train

KINDS: dict[str, list[str]] = {"float32": [], "int8": ["--quantize"]}
COMPUTE = ["--backend", "cpp", "--threads", "1"]


def trained(net: str, epochs: int, folder: Path) -> Path:
    """The checkpoint of a net after a short training."""
    train.main([
        "--model", net, "--epochs", str(epochs), "--validation", "0", "--out", str(folder), *COMPUTE,
        "--quiet",
    ])  # fmt: skip
    return folder / "best.safetensors"


def exported(checkpoint: Path, kind: str, out: Path) -> dict[str, Any]:
    """The size of an exported file, and its verification."""
    given = ["--checkpoint", str(checkpoint), "--to", "onnx", str(out), "--verify", data.SAMPLE]
    export.main([*given, *KINDS[kind], *COMPUTE])
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    return {"bytes": out.stat().st_size, "engines": json.loads(metadata["verification"])["engines"]}


def main() -> None:
    """Train, export, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=["simple_cnn", "resnet20"])
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(1), "epochs": args.epochs, "nets": {}}
    with tempfile.TemporaryDirectory() as name:
        for net in args.nets:
            checkpoint = trained(net, args.epochs, Path(name) / net)
            found["nets"][net] = {
                kind: exported(checkpoint, kind, Path(name) / f"{net}-{kind}.onnx") for kind in KINDS
            }
    save("exported", found)


if __name__ == "__main__":
    main()
