"""The shapes that operations have in real networks, as data for kernels.py."""

from __future__ import annotations

from typing import NamedTuple


class ConvShape(NamedTuple):
    """A square convolution of one layer of a network, at batch N."""

    n: int
    c: int
    size: int
    f: int
    kernel: int
    padding: int
    stride: int = 1
    groups: int = 1
    pool: bool = False
    """Followed by ReLU and a 2x2 max-pool in its network."""

    @property
    def out(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def multiply_adds(self) -> int:
        """Those of the forward pass; each of the two gradients takes as many."""
        return self.n * self.f * self.out**2 * self.kernel**2 * self.c // self.groups


CONVS = {
    "lenet_conv1": ConvShape(128, 1, 28, 6, 5, 2, pool=True),
    "lenet_conv2": ConvShape(128, 6, 14, 16, 5, 0, pool=True),
    "simple_conv1": ConvShape(128, 1, 28, 32, 3, 1, pool=True),
    "simple_conv2": ConvShape(128, 32, 14, 64, 3, 1, pool=True),
    "vgg_conv1": ConvShape(64, 3, 32, 64, 3, 1),
    "vgg_conv2": ConvShape(64, 64, 32, 64, 3, 1, pool=True),
    "vgg_conv4": ConvShape(64, 128, 16, 128, 3, 1, pool=True),
    "vgg_conv6": ConvShape(64, 256, 8, 256, 3, 1, pool=True),
    "resnet_stem": ConvShape(8, 3, 112, 64, 7, 3, stride=2),
    "resnet_1x1": ConvShape(32, 64, 28, 128, 1, 0),
    "resnet_strided": ConvShape(32, 64, 28, 128, 3, 1, stride=2),
    "mobilenet_depthwise": ConvShape(32, 64, 28, 64, 3, 1, groups=64),
    "odd_channels": ConvShape(32, 13, 29, 37, 3, 1),
    "odd_5x5": ConvShape(32, 19, 23, 27, 5, 2),
}

DENSES = {
    "lenet_fc1": (128, 400, 120),
    "simple_fc1": (128, 3136, 128),
    "vgg_fc": (64, 4096, 512),
}

IMAGES = {"simple_map1": (128, 32, 28), "vgg_map1": (64, 64, 32)}
"""N, C, H=W of feature maps for pools, ReLU and batch norm."""
