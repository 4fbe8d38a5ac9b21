# %% [markdown]
# # Inside a trained network
# What did it learn to look at? Its filters, its maps, and the pixels without which it would answer
# otherwise.

# %%
# %pip install --quiet minicnn
import matplotlib.pyplot as plt
import numpy as np

from minicnn import Sequential, Trainer, data, optim
from minicnn.inside.grad_cam import grad_cam
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU

clothes = data.load("fashion-mnist-sample", limit_train=2000, limit_test=500)
model = Sequential(
    Conv2d(1, 8, 5, padding=2), ReLU(), MaxPool2d(2), Conv2d(8, 16, 3, padding=1), ReLU(), MaxPool2d(2),
    Flatten(), Dense(16 * 49, 10), backend="numpy", seed=0,
)  # fmt: skip
trainer = Trainer(model, optim.Adam(lr=3e-3))
batches = data.Batches(clothes.train, 50, mean=clothes.mean, std=clothes.std, seed=0, backend=model.backend)
for epoch in range(3):
    for x, y in batches.epoch(epoch):
        trainer.step(x, y)
unseen = data.normalize(clothes.test.x, clothes.mean, clothes.std)
called = model.predict(unseen).argmax(axis=1)
print(f"{(called == clothes.test.y).mean():.1%} of the unseen pictures are right")

# %% [markdown]
# ## The filters of the first layer
# White counts for, black against.

# %%
filters = model.state_dict()["0.weight"][:, 0]
figure, places = plt.subplots(1, 8, figsize=(9, 1.5))
for place, values in zip(places, filters, strict=True):
    place.imshow(values, cmap="gray")
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Where it looked
# Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) weighs the maps of the last convolution by
# their gradients: bright places spoke for the answer.

# %%
some = np.array([np.flatnonzero(clothes.test.y == k)[0] for k in (0, 5, 7, 8, 9)])
heat = grad_cam(model, unseen[some], called[some])
figure, places = plt.subplots(2, len(some), figsize=(9, 3.8))
for k, number in enumerate(some):
    places[0, k].imshow(clothes.test.x[number, 0], cmap="gray")
    places[0, k].set_title(f"called {clothes.class_names[called[number]]}", fontsize=8)
    places[1, k].imshow(heat[k], cmap="magma")
for place in places.flat:
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Covered
# Cover a square of the picture and see how much less the network is sure. No gradient is needed for
# this.

# %%
number = some[3]
sure = np.empty((7, 7))
covered = np.repeat(unseen[number : number + 1], 49, axis=0)
for k in range(49):
    row, column = k // 7 * 4, k % 7 * 4
    covered[k, :, max(row - 2, 0) : row + 6, max(column - 2, 0) : column + 6] = unseen.min()
logits = model.predict(covered)
powers = np.exp(logits - logits.max(axis=1, keepdims=True))
sure.flat = (powers / powers.sum(axis=1, keepdims=True))[:, called[number]]
figure, places = plt.subplots(1, 2, figsize=(5, 2.6))
places[0].imshow(clothes.test.x[number, 0], cmap="gray")
places[1].imshow(sure, cmap="magma", vmin=0, vmax=1)
places[1].set_title("how sure, if covered there", fontsize=8)
for place in places:
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Try
# 1. Take a picture that is called wrongly. Where did the network look?
# 2. Ask Grad-CAM about another class: `grad_cam(model, unseen[some], np.full(len(some), 6))`.
# 3. Train no epoch at all. What do filters and maps look like then?
