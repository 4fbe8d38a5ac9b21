"""Every net of `minicnn.models`, small and in float64 on numpy, for tests of graph passes.

The wide VGGs are left out, since they take minutes.  The chains of their operations occur in the other
nets, and conv2d_relu, which does not, in the small nets of test_fuse.py.
"""

from __future__ import annotations

import numpy as np

from minicnn import Sequential, models

WIDE = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn")
NAMES = [name for name in models.names() if name not in WIDE]


def make(name: str, rng: np.random.Generator) -> tuple[Sequential, np.ndarray, np.ndarray]:
    """A model whose batch norms are as training would leave them, two images and their labels."""
    size = 80 if name == "inception_v3" else 32
    model = models.create(
        name, in_channels=1, num_classes=3, image_size=size, backend="numpy", dtype="float64", seed=1
    )
    state = model.state_dict()
    for key, a in state.items():
        if key.endswith("running_var"):
            state[key] = rng.uniform(0.5, 2.0, a.shape)
        elif key.endswith("running_mean"):
            state[key] = rng.standard_normal(a.shape)
    model.load_state_dict(state)
    return model, rng.standard_normal((2, 1, size, size)), np.array([0, 2])
