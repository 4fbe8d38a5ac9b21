"""The models, one file for each family: functions that return a `Sequential`."""

from __future__ import annotations

from collections.abc import Callable

from minicnn.backends import Backend, Pair
from minicnn.layers.layer import pair
from minicnn.layers.sequential import Sequential
from minicnn.models.fast_cnn import fast_cnn, fast_resnet
from minicnn.models.googlenet import googlenet
from minicnn.models.inception import inception_v3
from minicnn.models.lenet5 import lenet5
from minicnn.models.resnet import resnet18, resnet20, resnet34, resnet50
from minicnn.models.simple_cnn import simple_cnn
from minicnn.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg_small

__all__ = [
    "build", "create", "fast_cnn", "fast_resnet", "googlenet", "inception_v3", "lenet5", "names",
    "resnet18", "resnet20", "resnet34", "resnet50", "simple_cnn", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn",
    "vgg16", "vgg16_bn", "vgg_small",
]  # fmt: skip

_BUILDERS: dict[str, Callable[[int, int, Pair], Sequential]] = {
    "lenet5": lenet5,
    "simple_cnn": simple_cnn,
    "fast_cnn": fast_cnn,
    "fast_resnet": fast_resnet,
    "vgg_small": vgg_small,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vgg11": vgg11,
    "vgg11_bn": vgg11_bn,
    "vgg13": vgg13,
    "vgg13_bn": vgg13_bn,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
}


def names() -> list[str]:
    """The models that `create` knows."""
    return list(_BUILDERS)


def build(name: str, *, in_channels: int, num_classes: int, image_size: int | Pair) -> Sequential:
    """A model without parameters yet: `create` gives it a backend and its first weights.

    The arguments are those of `create`.
    """
    if name not in _BUILDERS:
        raise ValueError(f"[models] name: expected one of {', '.join(_BUILDERS)}, got {name}")
    for argument, value in (("in_channels", in_channels), ("num_classes", num_classes)):
        if value < 1:
            raise ValueError(f"[{name}] {argument}: expected at least 1, got {value}")
    return _BUILDERS[name](in_channels, num_classes, pair(image_size))


def create(
    name: str, *, in_channels: int, num_classes: int, image_size: int | Pair,
    backend: str | Backend = "auto", seed: int = 0, dtype: str = "float32", precision: str = "float32",
) -> Sequential:  # fmt: skip
    """A model for images (N,in_channels,H,W) and ``num_classes`` classes, with its first weights.

    Args:   name one of names() · image_size (H, W), or one number if they are equal · backend a name or a
            Backend · seed of the first weights and of dropout · dtype of the parameters, float32 or
            float64 · precision float32, bfloat16, or tf32 on cuda: see `minicnn.precision`
    Raises: ValueError naming the argument that is wrong · BackendUnavailable
    """
    model = build(name, in_channels=in_channels, num_classes=num_classes, image_size=image_size)
    model.bind(backend, seed=seed, dtype=dtype, precision=precision)
    return model
