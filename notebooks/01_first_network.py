# %% [markdown]
# # A first network
# Pictures of clothes go in, names come out. Every cell runs in seconds on a plain CPU: minicnn
# computes with NumPy here.
# Change a number, run again, and see what happens.

# %%
# %pip install --quiet minicnn
import matplotlib.pyplot as plt
import numpy as np

from minicnn import Sequential, Trainer, data, optim
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU

# %% [markdown]
# ## The pictures
# 1,500 to learn from, 500 that are kept back. Each has 28 by 28 pixels and belongs to one of ten
# classes.

# %%
clothes = data.load("fashion-mnist-sample", limit_train=1500, limit_test=500)
figure, places = plt.subplots(2, 5, figsize=(8, 3.6))
for k, place in enumerate(places.flat):
    image = clothes.train.x[clothes.train.y == k][0, 0]
    place.imshow(image, cmap="gray")
    place.set_title(clothes.class_names[k], fontsize=9)
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## The network
# A convolution looks for small patterns everywhere, ReLU keeps what is positive, a max-pool makes
# the maps smaller, and a dense layer
# adds up the evidence for each class.

# %%
model = Sequential(
    Conv2d(1, 8, 5, stride=2, padding=2), ReLU(), MaxPool2d(2), Flatten(), Dense(8 * 49, 10),
    backend="numpy", seed=0,
)  # fmt: skip
print(sum(values.size for values in model.state_dict().values()), "numbers to learn")

# %% [markdown]
# ## Training
# A step computes the loss of a batch, its gradient to every weight, and moves the weights downhill.
# An epoch uses each picture once.


# %%
def right(x: np.ndarray, y: np.ndarray) -> float:
    """The share of pictures that the model names rightly."""
    return float((model.predict(x).argmax(axis=1) == y).mean())


trainer = Trainer(model, optim.Adam(lr=3e-3))
batches = data.Batches(clothes.train, 50, mean=clothes.mean, std=clothes.std, seed=0, backend=model.backend)
unseen = data.normalize(clothes.test.x, clothes.mean, clothes.std)
before = right(unseen, clothes.test.y)
losses = []
for epoch in range(4):
    losses += [float(trainer.step(x, y)) for x, y in batches.epoch(epoch)]
    print(f"epoch {epoch + 1}: {right(unseen, clothes.test.y):.1%} of the unseen pictures are right")

# %%
figure, place = plt.subplots(figsize=(6, 3))
place.plot(losses)
place.set_xlabel("step")
place.set_ylabel("loss")
figure.tight_layout()

# %% [markdown]
# ## What it gets wrong

# %%
called = model.predict(unseen).argmax(axis=1)
wrong = np.flatnonzero(called != clothes.test.y)
figure, places = plt.subplots(1, 5, figsize=(9, 2.4))
for place, k in zip(places, wrong, strict=False):
    place.imshow(clothes.test.x[k, 0], cmap="gray")
    true, said = clothes.class_names[clothes.test.y[k]], clothes.class_names[called[k]]
    place.set_title(f"{true},\ncalled {said}", fontsize=8)
    place.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Try
# 1. Set the learning rate to 0.3, then to 0.00003. What does the loss do?
# 2. Leave out the convolution, ReLU and the max-pool: `Flatten(), Dense(28 * 28, 10)`. How much
#    worse is it?
# 3. Train 20 epochs. Does the share of unseen pictures that are right still rise?
