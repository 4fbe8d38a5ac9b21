"""What bfloat16 costs in accuracy: recipes in bfloat16 and in float32, and one training that it spoils.

    python benchmarks/precision.py                      the recipes, three seeds each
    python benchmarks/precision.py digits --seeds 0,1   some of them
    python benchmarks/precision.py --offset             the training that it spoils, in a few seconds
    python benchmarks/precision.py fashion-94 --backend cuda    on a card, in tf32 too

A recipe's accuracy is that of the test images after the last epoch, of whole commands.  The spoilt training
is of lenet5 on the bundled sample, with a constant added to the standardised images, which a batch norm in
front of the net takes away again.  The larger the constant, the farther apart are the bfloat16 numbers
around it, so that what differs between the images is rounded away before the batch norm sees it.

Writes benchmarks/results/precision.json; what was measured before and is not measured anew is kept.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Any

import recipes
from paired import load, machine, save

from minicnn import Trainer, data, models, optim, set_num_threads
from minicnn.layers import BatchNorm2d, Sequential
from minicnn.metrics import accuracy

RECIPES = ("digits", "fashion-quick", "fashion-94")
PRECISIONS = ("float32", "bfloat16")
OF_BACKEND = {"cpp": PRECISIONS, "cuda": ("float32", "tf32", "bfloat16")}
SAVED_AS = {"cpp": "recipes", "cuda": "recipes on a card"}
OFFSETS = (0, 64, 256, 512, 2048)
EPOCHS = 3


def of_recipe(name: str, seeds: list[str], flags: list[str], backend: str) -> dict[str, Any]:
    """The accuracy and seconds of each precision by seed, and how the accuracies differ from float32's."""
    accuracy: dict[str, dict[str, float]] = {precision: {} for precision in OF_BACKEND[backend]}
    spent: dict[str, dict[str, float]] = {precision: {} for precision in OF_BACKEND[backend]}
    for seed in seeds:
        for precision in OF_BACKEND[backend]:
            asked = ["--recipe", name, "--seed", seed, "--precision", precision, *flags]
            reached, seconds = recipes.run("minicnn", asked, backend)
            accuracy[precision][seed], spent[precision][seed] = reached, round(seconds, 1)
            print(f"{name}, seed {seed}: {precision} {reached:.2%} in {seconds:.1f} s", flush=True)
    return {"accuracy": accuracy, "seconds": spent, **difference(accuracy)}


def difference(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """bfloat16's mean less float32's; its standard error is None for one seed."""
    pairs = [found["bfloat16"][seed] - found["float32"][seed] for seed in found["float32"]]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
    return {
        "bfloat16 - float32": round(statistics.mean(pairs), 5),
        "standard error": None if error is None else round(error, 5),
    }


def place(backend: str, threads: int) -> dict[str, Any]:
    """The machine, and the card where that computes."""
    if backend != "cuda":
        return machine(threads)
    import torch

    from minicnn.backends import cuda_build

    card = cuda_build.label() if cuda_build.emulated() else torch.cuda.get_device_name()
    return machine(threads) | {"card": card}


def with_offset(offset: float, precision: str) -> dict[str, float]:
    """Accuracy and last epoch's loss where ``offset`` was added to the standardised images."""
    dataset = data.load(data.SAMPLE)
    mean = dataset.mean - offset * dataset.std
    batches = data.Batches(dataset.train, 64, mean=mean, std=dataset.std, seed=0)
    net = models.build("lenet5", in_channels=1, num_classes=len(dataset.class_names), image_size=28)
    model = Sequential({"norm": BatchNorm2d(1), "net": net}, backend="cpp", precision=precision)
    trainer = Trainer(model, optim.Adam(lr=1e-3))
    for epoch in range(EPOCHS):
        losses = [trainer.step(x, y) for x, y in batches.epoch(epoch)]
    images = data.normalize(dataset.test.x, mean, dataset.std)
    reached = accuracy(model.predict(images), dataset.test.y)
    return {"accuracy": round(reached, 4), "training loss": round(statistics.mean(losses), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipes", nargs="*", default=[], choices=[*RECIPES, []], metavar="RECIPE")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", choices=OF_BACKEND, default="cpp")
    parser.add_argument("--data-dir")
    parser.add_argument("--offset", action="store_true")
    args = parser.parse_args()
    result = {"recipes": {}, **load("precision")}
    if args.offset:
        set_num_threads(args.threads)
        rows = {str(o): {p: with_offset(o, p) for p in PRECISIONS} for o in OFFSETS}
        save("precision", result | {"offset": rows, "offset machine": machine(args.threads)})
        return
    flags = ["--threads", str(args.threads)] + (["--data-dir", args.data_dir] if args.data_dir else [])
    key = SAVED_AS[args.backend]
    for name in args.recipes or RECIPES:
        measured = of_recipe(name, args.seeds.split(","), flags, args.backend)
        measured["machine"] = place(args.backend, args.threads)
        result[key] = result.get(key, {}) | {name: measured}
        save("precision", result)


if __name__ == "__main__":
    main()
