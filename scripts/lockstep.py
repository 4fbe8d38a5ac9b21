"""The same net, seed and batches on numpy, cpp, cuda and torch, one step at a time: how far they part.

Every side begins with the same float32 weights and takes the same float32 batches, so only rounding
differs.  The reference is torch in float64.  A control run in torch shows what the net itself makes of
rounding: it computes as the reference does, from weights each moved by at most half a unit in the last
place.  In float64 a distance beyond the net's bound ends the script with exit status 1.
In bfloat16 torch's side is autocast.

Without a GPU cuda runs emulated on the CPU, which is slow: it then takes part in the first 50 steps, and in
the first five of those in bfloat16.
Writes benchmarks/results/lockstep.json and docs/images/lockstep.png, which docs/lockstep.md explains.

    python scripts/lockstep.py [--nets lenet5 resnet20] [--steps N]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from paired import machine, save  # noqa: E402 - after the path is set
from themes import DARK  # noqa: E402 - likewise

from minicnn import Sequential, Trainer, data, models, optim, set_num_threads  # noqa: E402 - likewise
from minicnn.backends import Backend, cuda_build, get_backend  # noqa: E402 - likewise
from minicnn.torch_reference import to_torch  # noqa: E402 - likewise

State = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]
SEED = 0
MOMENTUM = 0.9
EMULATED_STEPS = {"float64": 50, "float32": 50, "bfloat16": 5}
"""In bfloat16 each tensor core is emulated too, which takes ten times as long."""
BACKENDS = ("numpy", "cpp", "cuda")
REFERENCE, CONTROL = "torch float64", "control"
DTYPES = ("float64", "float32", "bfloat16")
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}
"""The distance of 1 from the next number."""
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)
"""Steps whose figures are saved, besides the last."""


class Net(NamedTuple):
    """What is trained on the bundled sample, with SGD."""

    image_size: int | None
    batch_size: int
    lr: float
    steps: int | None
    """None: one epoch."""
    bound: float
    """Greatest distance in float64, of the weights and of the loss, each relative to the reference's.

    Room for a hundred roundings of 1.1e-16 of each weight in a step, which then grow by the factor that the
    control shows: ten over lenet5's epoch, 1e5 over resnet20's 50 steps.
    """


NETS = {
    "lenet5": Net(None, 32, 0.02, None, bound=1e-13),
    "resnet20": Net(16, 8, 0.02, 50, bound=1e-9),
}


class Side(NamedTuple):
    """One of those that train side by side."""

    step: Callable[[np.ndarray, np.ndarray], float]
    """(x, y) -> loss."""
    state: Callable[[], State]
    """() -> parameters and running statistics."""
    steps: int | None = None
    """Takes part in so many steps only."""


class Kinks:
    """The choices that a torch net made in its last forward pass: ReLUs on or off, winners of max-pools."""

    def __init__(self, module: nn.Module) -> None:
        self.choices: list[torch.Tensor] = []
        module.register_forward_pre_hook(lambda *_: self.choices.clear())
        for part in module.modules():
            if isinstance(part, (nn.ReLU, nn.MaxPool2d)):
                part.register_forward_hook(self._note)

    def _note(self, part: nn.Module, inputs: tuple[torch.Tensor], y: torch.Tensor) -> None:
        if isinstance(part, nn.MaxPool2d):
            y = F.max_pool2d(
                inputs[0], part.kernel_size, part.stride, part.padding, return_indices=True
            )[1]  # fmt: skip
        self.choices.append(y if isinstance(part, nn.MaxPool2d) else y > 0)

    def differing(self, other: Kinks) -> int:
        """How many choices are not the other's."""
        return sum(int((a != b).sum()) for a, b in zip(self.choices, other.choices, strict=True))


def batches(net: Net) -> tuple[data.Dataset, Iterator[Batch]]:
    """The bundled sample and its batches, float32, the same for every side."""
    dataset = data.load(data.SAMPLE, image_size=net.image_size)
    parts = data.Batches(
        dataset.train, net.batch_size, mean=dataset.mean, std=dataset.std, seed=SEED
    )  # fmt: skip
    return dataset, itertools.islice(parts.epoch(0), net.steps)


def make_model(name: str, dataset: data.Dataset, backend: str | Backend, dtype: str) -> Sequential:
    """The net with the same weights in every dtype, or precision: those drawn in float32."""
    options: dict[str, Any] = {
        "in_channels": dataset.train.x.shape[1], "num_classes": len(dataset.class_names),
        "image_size": dataset.train.x.shape[2:], "backend": backend, "seed": SEED,
    }  # fmt: skip
    model = models.create(name, **options)
    if dtype == "float64":
        wide = models.create(name, dtype=dtype, **options)
        wide.load_state_dict(model.state_dict())
        return wide
    if dtype == "bfloat16":
        model.set_precision(dtype)
    return model


def our_side(model: Sequential, lr: float, steps: int | None = None) -> Side:
    """minicnn's trainer on the model's backend."""
    trainer = Trainer(model, optim.SGD(lr=lr, momentum=MOMENTUM))
    return Side(lambda x, y: trainer.step(x.astype(model.dtype), y), model.state_dict, steps)


def torch_side(module: nn.Module, lr: float, *, autocast: bool = False) -> Side:
    """The training loop that PyTorch's users write, with ``autocast`` in bfloat16."""
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=MOMENTUM)
    dtype = next(module.parameters()).dtype

    def step(x: np.ndarray, y: np.ndarray) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = module(torch.from_numpy(x).to(dtype))
        loss = F.cross_entropy(logits.to(dtype), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return Side(step, lambda: {name: a.detach().numpy() for name, a in module.state_dict().items()})


def nudged(module: nn.Module, dtype: str) -> nn.Module:
    """A float64 module, each weight moved by up to half a unit in the last place of ``dtype``."""
    generator = np.random.default_rng(SEED)
    half_unit = EPSILON[dtype] / 2
    with torch.no_grad():
        for parameter in module.parameters():
            shift = generator.uniform(-half_unit, half_unit, tuple(parameter.shape))
            parameter.mul_(1 + torch.from_numpy(shift))
    return module


def distance(state: State, reference: State) -> float:
    """Norm of the difference of all weights and running statistics, relative to that of the weights."""
    names = [name for name, a in reference.items() if a.dtype.kind == "f"]
    here, there = (np.concatenate([s[n].ravel().astype(float) for n in names]) for s in (state, reference))
    return float(np.linalg.norm(here - there) / np.linalg.norm(there))


def run(name: str, net: Net, dtype: str, backends: dict[str, Backend]) -> dict[str, Any]:
    """Losses and distances from the reference, one entry a step, and torch's differing choices."""
    dataset, pairs = batches(net)

    def reference_module() -> nn.Module:
        return to_torch(make_model(name, dataset, "numpy", "float64"))

    exact = reference_module()
    modules = {CONTROL: nudged(reference_module(), dtype)}
    if dtype != "float64":
        modules["torch"] = to_torch(make_model(name, dataset, "numpy", "float32"))
    chosen, theirs = Kinks(exact), {side: Kinks(module) for side, module in modules.items()}
    reference = torch_side(exact, net.lr)
    sides = {
        backend_name: our_side(
            make_model(name, dataset, backend, dtype), net.lr,
            EMULATED_STEPS[dtype] if backend_name == "cuda" and cuda_build.emulated() else None,
        )
        for backend_name, backend in backends.items()
    } | {
        side: torch_side(module, net.lr, autocast=dtype == "bfloat16" and side != CONTROL)
        for side, module in modules.items()
    }  # fmt: skip
    curves: dict[str, Any] = {
        "losses": {side: [] for side in (REFERENCE, *sides)},
        "distances": {side: [] for side in sides},
        "flips": {side: [] for side in modules},
    }
    for number, (x, y) in enumerate(pairs):
        curves["losses"][REFERENCE].append(reference.step(x, y))
        expected = reference.state()
        for side_name, side in sides.items():
            if side.steps is None or number < side.steps:
                curves["losses"][side_name].append(side.step(x, y))
                curves["distances"][side_name].append(distance(side.state(), expected))
        for side_name, kinks in theirs.items():
            curves["flips"][side_name].append(kinks.differing(chosen))
    return curves | {"choices": sum(c.numel() for c in chosen.choices)}


def summary(curves: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run at a few steps, and the worst of all steps."""
    reference = np.array(curves["losses"][REFERENCE])
    sides: dict[str, dict[str, Any]] = {}
    for name, values in curves["distances"].items():
        loss = np.abs(np.array(curves["losses"][name]) / reference[: len(values)] - 1)
        sides[name] = {
            "steps": len(values),
            "weights": {step: _short(values[step - 1]) for step in _shown(len(values))},
            "worst weights": _short(max(values)),
            "worst loss": _short(float(loss.max())),
        }
    for name, counts in curves["flips"].items():
        sides[name]["choices that differ"] = {step: counts[step - 1] for step in _shown(len(counts))}
        sides[name]["first step with such"] = next((i for i, n in enumerate(counts, 1) if n), None)
    return {
        "reference's loss": {step: _short(reference[step - 1]) for step in _shown(len(reference))},
        "choices a step: ReLUs, max-pools": curves["choices"],
        "sides": sides,
    }


def beyond_bound(results: dict[str, Any]) -> list[str]:
    """One sentence for each backend that left the reference in float64."""
    return [
        f"{net}, {side}, float64: expected at most {NETS[net].bound:g} from torch, "
        f"got {what} {figures[what]:.2g}"
        for net, result in results.items()
        for side, figures in result["float64"]["sides"].items()
        for what in ("worst weights", "worst loss")
        if not figures[what] <= NETS[net].bound
    ]


def draw(path: Path, curves: dict[str, dict[str, Any]]) -> None:
    """A row a net: the losses in float32 and bfloat16, the distances of the weights in every dtype."""
    from matplotlib.figure import Figure

    styles: dict[str, dict[str, Any]] = {
        REFERENCE: {"color": matplotlib.rcParams["text.color"], "lw": 3, "alpha": 0.35},
        CONTROL: {"color": "grey", "ls": "--", "label": "torch float64, weights nudged once (control)"},
        "torch": {"color": "#cc6633", "label": "torch float32, or autocast in bfloat16"},
        "numpy": {"color": "#4477aa", "lw": 2.4, "alpha": 0.6},
        "cpp": {"color": "#228833", "ls": "-."},
        "cuda": {"color": "#aa3377", "ls": ":", "lw": 2.2, "label": "cuda (emulated)"},
    }
    if not cuda_build.emulated():
        del styles["cuda"]["label"]
    figure = Figure(figsize=(24, 4.2 * len(curves)), layout="constrained")
    for row, (name, by_dtype) in zip(
        figure.subplots(len(curves), 5, squeeze=False), curves.items(), strict=True
    ):
        net = NETS[name]
        panels = (
            *(("losses", d, f"{name}, batch {net.batch_size}: loss in {d}") for d in DTYPES[1:]),
            *(("distances", d, f"{name}: distance of the weights in {d}") for d in DTYPES),
        )
        for axes, (what, dtype, title) in zip(row, panels, strict=True):
            for side, values in by_dtype[dtype][what].items():
                if what == "losses" and side == CONTROL:
                    continue
                style = {"label": side, "lw": 1.4} | styles[side]
                axes.plot(range(1, len(values) + 1), values, **style)
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("step")
            axes.set_ylabel(
                "loss (cross-entropy)" if what == "losses" else "‖w − w torch float64‖ / ‖w torch float64‖"
            )
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if what == "distances":
                axes.set_yscale("log")
            if dtype == "float64":
                axes.axhline(net.bound, color="red", lw=1)
                axes.annotate("bound", (1, net.bound), (0, 3), textcoords="offset points", color="red")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    control = figure.axes[2].get_legend_handles_labels()
    handles.append(control[0][-1])
    labels.append(control[1][-1])
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)
    with Image.open(path) as drawn:  # few colours, so that it is a third as large
        drawn.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def _shown(steps: int) -> list[int]:
    return [step for step in SHOWN if step < steps] + [steps]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    """Run the nets in every dtype; exit status 1 if one leaves the bound."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument(
        "--steps", type=int, help="stop after so many steps; as with fewer nets, nothing is saved then",
    )  # fmt: skip
    args = parser.parse_args()
    set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ["MINICNN_CUDA_EMULATION"] = "1"
    backends = {name: get_backend(name) for name in BACKENDS}
    curves: dict[str, dict[str, Any]] = {}
    results: dict[str, Any] = {}
    for name in args.nets:
        net = NETS[name] if args.steps is None else NETS[name]._replace(steps=args.steps)
        curves[name] = {dtype: run(name, net, dtype, backends) for dtype in DTYPES}
        results[name] = net._asdict() | {"momentum": MOMENTUM, "seed": SEED}
        results[name] |= {dtype: summary(found) for dtype, found in curves[name].items()}
        for dtype in curves[name]:
            for side, figures in results[name][dtype]["sides"].items():
                worst = f"weights {figures['worst weights']:.2g}, loss {figures['worst loss']:.2g}"
                print(f"{name} {dtype} {side}: {figures['steps']} steps, {worst}", flush=True)
    problems = beyond_bound(results)
    if args.steps is None and set(args.nets) == set(NETS):
        labels = {name: backend.label for name, backend in backends.items()}
        save("lockstep", {"machine": machine(1), "backends": labels, "nets": results})
        for theme, looks in {"": {}, "-dark": DARK}.items():
            with matplotlib.rc_context(looks):
                draw(ROOT / "docs" / "images" / f"lockstep{theme}.png", curves)
    print("\n".join(problems) or "float64: every backend within the bounds, at every step")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
