# %% [markdown]
# # What a convolution sees
# A filter of nine numbers is moved over a picture. At each place its numbers are multiplied by the
# pixels below and added up.

# %%
# %pip install --quiet minicnn
import matplotlib.pyplot as plt
import numpy as np

from minicnn import data
from minicnn.ops.conv2d import conv2d_forward

clothes = data.load("fashion-mnist-sample", limit_train=100, limit_test=10)
image = clothes.train.x[clothes.train.y == 0][:1] / 255.0

# %% [markdown]
# ## By hand
# One place of the map: a window, nine products, a sum.

# %%
upright = np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
row, column = 10, 4
window = image[0, 0, row : row + 3, column : column + 3]
by_hand = float((window * upright).sum())
print(np.round(window, 2))
print("sum of the products:", round(by_hand, 3))

# %% [markdown]
# ## Everywhere
# `conv2d_forward` does the same at each place, for any number of filters.

# %%
filters = {
    "upright edges": upright,
    "level edges": upright.T,
    "spots": np.array([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]),
    "blur": np.full((3, 3), 1 / 9),
}
one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
maps = conv2d_forward(image, np.stack(list(filters.values()))[:, None], None, **one)
print("at the same place:", round(float(maps[0, 0, row, column]), 3))

# %%
figure, places = plt.subplots(1, 5, figsize=(10, 2.4))
for place, name, shown in zip(places, ["image", *filters], [image[0, 0], *maps[0]], strict=True):
    place.imshow(shown, cmap="gray")
    place.set_title(name, fontsize=9)
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Size
# Without padding the map loses two rows and columns; with padding 1 it keeps its size; a stride of
# 2 halves it.

# %%
for stride, padding in ((1, 0), (1, 1), (2, 1)):
    attributes = {**one, "stride": (stride, stride), "padding": (padding, padding)}
    y = conv2d_forward(image, upright[None, None], None, **attributes)
    print(f"stride {stride}, padding {padding}: {image.shape[2:]} becomes {y.shape[2:]}")

# %% [markdown]
# ## Moved
# If the picture moves, its map moves with it. That is why one filter is enough for the whole
# picture.

# %%
moved = np.roll(image, 2, axis=3)
difference = conv2d_forward(moved, upright[None, None], None, **one)[..., 2:]
difference = difference - conv2d_forward(image, upright[None, None], None, **one)[..., :-2]
print("largest difference, apart from the rim:", float(np.abs(difference[..., 2:]).max()))

# %% [markdown]
# ## Try
# 1. Find nine numbers that answer to edges from the upper left to the lower right.
# 2. Which filter leaves the picture as it is? Which moves it by one pixel?
# 3. Apply the blur five times. Which larger filter would do it at once?
