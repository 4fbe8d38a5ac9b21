# %% [markdown]
# # Where gradients come from
# Backpropagation says how the loss changes with every number. You can measure the same by changing
# a number a little. Both must agree.

# %%
# %pip install --quiet minicnn
import matplotlib.pyplot as plt
import numpy as np

from minicnn.ops.conv2d import conv2d_backward, conv2d_forward
from minicnn.ops.max_pool2d import max_pool2d_backward, max_pool2d_forward
from minicnn.ops.relu import relu_backward, relu_forward
from minicnn.ops.softmax_cross_entropy import softmax_cross_entropy_backward, softmax_cross_entropy_forward

CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
POOL = {"kernel_size": (4, 4), "stride": (4, 4), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}

# %% [markdown]
# ## Forward
# A picture of 4 by 4 pixels, three filters, ReLU, one maximum for each filter, the loss. Every
# operation keeps what its way back needs.

# %%
rng = np.random.default_rng(0)
image, weight = rng.standard_normal((1, 1, 4, 4)), rng.standard_normal((3, 1, 3, 3))
label = np.array([1])


def forward(weight: np.ndarray) -> tuple[float, tuple]:
    """The loss, and what backward needs."""
    active = relu_forward(conv2d_forward(image, weight, None, **CONV))
    pooled, winner = max_pool2d_forward(active, **POOL)
    loss, probabilities = softmax_cross_entropy_forward(pooled.reshape(1, 3), label)
    return float(loss), (active, winner, probabilities)


loss, (active, winner, probabilities) = forward(weight)
print(f"loss {loss:.4f}, probabilities {np.round(probabilities, 3)}")

# %% [markdown]
# ## Backward
# The same operations from the last to the first. Each turns the gradient of its output into that of
# its input.

# %%
dlogits = softmax_cross_entropy_backward(probabilities, label)
dactive = max_pool2d_backward(dlogits.reshape(1, 3, 1, 1), winner, input_shape=active.shape, **POOL)
dmap = relu_backward(dactive, active)
_, dweight, _ = conv2d_backward(dmap, image, weight, **CONV)
print("values of the maps that get a gradient:", int((dmap != 0).sum()), "of", dmap.size)

# %% [markdown]
# ## Measured
# Change one weight by a tiny step, up and down, and see what the loss does.

# %%
step = 1e-6
measured = np.empty_like(weight)
for place in np.ndindex(weight.shape):
    up, down = weight.copy(), weight.copy()
    up[place] += step
    down[place] -= step
    measured[place] = (forward(up)[0] - forward(down)[0]) / (2 * step)
largest = float(np.abs(measured - dweight).max())
print(f"largest difference: {largest:.1e}")

# %% [markdown]
# ## Downhill
# A step against the gradient makes the loss smaller, if it is short enough.

# %%
rates = np.logspace(-3, 2, 40)
after = [forward(weight - rate * dweight)[0] for rate in rates]
figure, place = plt.subplots(figsize=(6, 3))
place.semilogx(rates, after, label="after one step")
place.axhline(loss, linestyle="--", color="gray", label="before")
place.set_xlabel("learning rate")
place.set_ylabel("loss")
place.legend()
figure.tight_layout()

# %% [markdown]
# ## Try
# 1. Subtract nothing from the gradient but turn its sign: does the loss rise?
# 2. Make `step` 1e-1, then 1e-13. Why is the difference larger both times?
# 3. Plant a bug: multiply `dmap` by 1.1. Does the measurement notice it?
