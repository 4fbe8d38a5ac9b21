"""The pictures of the learning path, from the numbers that its programs returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from charts import Chart, legend, pixels, signed
from lessons import saved
from svg import Drawing, number

_T = TypeVar("_T")

STYLES = ("path-a", "path-b", "path-c", "path-d")


def _numbers(lesson: str) -> dict[str, Any]:
    found: dict[str, Any] = saved()[lesson]["numbers"]
    return found


def _in_rows(
    items: Iterable[_T], columns: int, wide: float, high: float
) -> Iterator[tuple[float, float, _T]]:
    """Each thing with the upper left corner of its place, in rows of so many columns."""
    for k, item in enumerate(items):
        yield wide * (k % columns), high * (k // columns), item


def pixels_table() -> str:
    """An image, and a part of it as numbers."""
    n = _numbers("pixels")
    d = Drawing()
    side = 196
    pixels(d, 0, 26, side, n["image"])
    d.text(side / 2, 10, n["name"])
    cell = side / 14
    d.box(3 * cell, 26 + 4 * cell, 8 * cell, 5 * cell, "frame-a")
    d.arrow(side + 8, 26 + side / 2, side + 38, 26 + side / 2)
    d.grid(side + 46, 56, n["part"], "the framed part, 0 black to 100 white", cell=32)
    return d.figure(
        f"One image of {n['pixels']} pixels. To the computer it is the table on the right, and "
        f"nothing else."
    )


def mean_images() -> str:
    """The mean image of each class."""
    n = _numbers("pixels")
    d = Drawing()
    for x, y, (mean, name) in _in_rows(zip(n["means"], n["names"], strict=True), 5, 108, 122):
        pixels(d, x, y, 92, mean, name)
    return d.figure(
        "The mean of all images of each class. Each is blurred, because no two shirts are alike."
    )


def templates() -> str:
    """The weights of each class as a picture."""
    n = _numbers("linear")
    d = Drawing()
    for x, y, (template, name) in _in_rows(zip(n["templates"], n["names"], strict=True), 5, 108, 122):
        signed(d, x, y, 92, template, name)
    return d.figure(
        "The weights that each class learned, one for each pixel. A bright pixel on blue speaks for "
        "the class, on "
        "orange against it."
    )


def scores() -> str:
    """One image and the score of each class."""
    n = _numbers("linear")
    d = Drawing()
    pixels(d, 0, 40, 150, n["image"], n["name"])
    low, high = min(*n["scores"], 0), max(n["scores"])
    zero, scale = 330 - low * 20, 20
    d.line([(zero, 0), (zero, 22 * len(n["scores"]))], "axis")
    for k, (score, name) in enumerate(zip(n["scores"], n["names"], strict=True)):
        y = 22 * k + 2
        d.text(310, y + 8, name, "right small")
        d.box(min(zero, zero + score * scale), y, abs(score) * scale, 16, "c" if score == high else "a")
        d.text(zero + high * scale + 12, y + 8, number(score), "left small")
    answer = n["names"][n["scores"].index(high)]
    verdict = "it is right" if answer == n["name"] else "it is a mistake"
    return d.figure(f"Ten scores of one image. The highest score is the answer: {answer}. Here {verdict}.")


def framed() -> str:
    """Images at any place of a larger frame."""
    d = Drawing()
    for k, image in enumerate(_numbers("linear")["framed"]):
        pixels(d, 124 * k, 0, 110, image)
    return d.figure("The same kind of images, each at a random place of a larger frame.")


def edge_map() -> str:
    """A window, a filter, one value of the map; the moved image and its map."""
    n = _numbers("convolution")
    d = Drawing()
    side, cell = 170, 170 / 22
    for k, (image, edges, title) in enumerate(
        [(n["image"], n["edges"], ""), (n["moved_image"], n["moved_edges"], "moved 3 to the right")]
    ):
        top = 30 + k * (side + 44)
        pixels(d, 0, top, side, image)
        signed(d, side + 150, top, side, edges)
        d.text(side / 2, top - 14, title or "image")
        d.text(side + 150 + side / 2, top - 14, "its map" if title else "map")
        row, column = n["row"], n["column"] + 3 * k
        d.box((column - 1) * cell, top + (row - 1) * cell, 3 * cell, 3 * cell, "frame-a")
        d.box(side + 150 + column * cell - 2, top + row * cell - 2, cell + 4, cell + 4, "frame-a")
        d.grid(
            side + 24,
            top + 40,
            [[-1, 0, 1]] * 3,
            "filter",
            dict.fromkeys([(i, j) for i in range(3) for j in range(3)], "b"),
        )
        d.arrow(side + 4, top + 90, side + 22, top + 90)
        d.arrow(side + 128, top + 90, side + 146, top + 90)
    return d.figure(
        "The filter answers where dark meets bright from left to right (blue) or bright meets dark "
        "(orange). One filter of "
        "nine weights serves all places, so when the image moves its map moves along, unchanged."
    )


def neighbourhood() -> str:
    """Which inputs one output of a dense layer and of a convolution sees, and how many weights that
    takes.
    """
    n = _numbers("convolution")
    d = Drawing()
    for k, (title, dense) in enumerate((("dense", True), ("convolution", False))):
        left = 250 * k
        d.text(left + 100, 8, title)
        for i in range(9):
            x = left + i * 23
            d.box(x, 130, 16, 16, "a")
            d.box(x, 26, 16, 16, "c" if i in (3, 5) else "")
        for out, style in ((3, "path-b"), (5, "path-d")):
            for i in range(9):
                if dense or abs(i - out) <= 1:
                    shared = STYLES[i - out + 1] if not dense else style
                    d.line([(left + 8 + i * 23, 130), (left + 8 + out * 23, 42)], f"{shared} thin-path")
        d.text(
            left + 100,
            164,
            "every pixel, own weights" if dense else "neighbours, the same weights",
            "small",
        )
    return d.figure(
        f"A row of pixels below, outputs above. From an image of {n['pixels']} pixels to 8 maps, a "
        f"dense layer has "
        f"{n['dense_layer']:,} weights, a convolution of 3×3 has {n['conv_layer']}."
    )


def feature_maps() -> str:
    """The eight learned filters, and what each finds in one image."""
    n = _numbers("convolution")
    d = Drawing()
    for x, y, (weights, found) in _in_rows(zip(n["filters"], n["maps"], strict=True), 4, 122, 178):
        signed(d, x + 34, y, 42, weights)
        signed(d, x, y + 52, 110, found)
    return d.figure(
        "The eight filters that the network learned, and below each the map that it makes of one "
        "image, after ReLU. Nobody "
        "chose these filters."
    )


def loss_curve() -> str:
    """The loss against the weight, its slope at the start, and one step each way."""
    n = _numbers("descent")
    d = Drawing()
    chart = Chart(d, 40, 30, 420, 220, (-3, 5), (0, 2.5))
    chart.ticks((-2, 0, 2, 4), (0, 1, 2), ("weight w", "loss"))
    chart.line(n["curve"], "path-a")
    w, slope = n["start"], n["slope"]
    chart.line([(w - 1.2, n["loss"] - 1.2 * slope), (w + 1.2, n["loss"] + 1.2 * slope)], "line")
    chart.dots([(w, n["loss"])], "dot-a")
    chart.dots([(n["after"], n["lower"])], "dot-c")
    chart.dots([(n["wrong"], n["higher"])], "dot-b")
    for place, words in (
        ((w, n["loss"]), "start"),
        ((n["after"], n["lower"]), "minus"),
        ((n["wrong"], n["higher"]), "plus"),
    ):
        x, y = chart.place(*place)
        d.text(x + 10, y - 10, words, "left small")
    return d.figure(
        f"The loss for every weight, computed by the program. At w = {number(w)} the slope is "
        f"{number(round(slope, 2))}: the curve falls to the "
        "right. Subtracting the slope goes to the right, downhill; adding it goes uphill."
    )


def learning_rates() -> str:
    """Where twelve steps lead with three learning rates."""
    n = _numbers("descent")
    d = Drawing()
    chart = Chart(d, 40, 30, 420, 220, (0, 12), (0, 3))
    chart.ticks((0, 4, 8, 12), (0, 1, 2, 3), ("step", "loss"))
    for style, path in zip(STYLES, n["paths"].values(), strict=False):
        chart.line([(k, loss) for k, (_, loss) in enumerate(path)], style)
    legend(d, 260, 50, [(s, f"learning rate {rate}") for s, rate in zip(STYLES, n["paths"], strict=False)])
    return d.figure(
        "The same start and slopes. A rate that is too small wastes steps; one that is too large "
        "jumps far over the valley, and the loss rises first."
    )


def _runs(d: Drawing, runs: list[dict[str, Any]], left: float, top: float, title: str) -> None:
    chart = Chart(d, left, top + 30, 200, 120, (1, 4), (0.4, 3))
    chart.ticks((1, 2, 3, 4), (1, 2, 3), ("epoch", ""))
    d.text(left + 100, top + 10, title)
    for style, run in zip(STYLES, runs, strict=False):
        chart.line([(k + 1, loss) for k, loss in enumerate(run["losses"]) if loss is not None], style)
    legend(d, left, top + 204, [(s, run["label"]) for s, run in zip(STYLES, runs, strict=False)])


def training_curves(*which: str) -> str:
    """The losses of the runs of these kinds, side by side."""
    n = _numbers("training")
    titles = {"rates": "learning rate", "batches": "images in a batch", "weights": "first weights",
              "norms": "with batch norm", "schedules": "schedule"}  # fmt: skip
    d = Drawing()
    for k, kind in enumerate(which):
        _runs(d, n[kind], 20 + 260 * k, 0, titles[kind])
    hidden = ' The line of "times 0" lies under that of "times 0.1".' if "weights" in which else ""
    return d.figure(
        "The mean loss of each epoch; a loss above 3 is drawn at 3. Where the loss stays at 2.3 the "
        f"network only guesses among ten classes: log 10 = 2.30.{hidden}"
    )


def overfitting() -> str:
    """The loss on the images learnt from and on others."""
    n = _numbers("judging")
    d = Drawing()
    chart = Chart(d, 40, 30, 420, 220, (1, n["epochs"]), (0, 1.8))
    chart.ticks((1, 10, 20, 30, 40), (0, 0.5, 1, 1.5), ("epoch", "loss"))
    for k, style in enumerate(("path-a", "path-b")):
        chart.line([(e + 1, losses[k]) for e, losses in enumerate(n["history"])], style)
    chart.dots([(n["best"], n["best_losses"][1])], "dot-b")
    x, y = chart.place(n["best"], n["best_losses"][1])
    d.text(x, y + 18, f"best: epoch {n['best']}", "small")
    legend(d, 270, 40, [("path-a", "images learnt from"), ("path-b", "validation")])
    return d.figure(
        "One training. The loss on the images learnt from keeps falling; that of images never learnt "
        "from turns around."
    )


def confusion() -> str:
    """What each class was called."""
    n = _numbers("judging")
    d = Drawing()
    cell, left, top = 38, 96, 86
    size = len(n["names"])
    for i, name in enumerate(n["names"]):
        d.text(left - 8, top + (i + 0.5) * cell, name, "right small")
        x = left + (i + 0.5) * cell
        d.parts.append(
            f'<text x="{x:g}" y="{top - 8:g}" class="small left" '
            f'transform="rotate(-50 {x:g} {top - 8:g})">{name}</text>'
        )
        for j, count in enumerate(n["matrix"][i]):
            share = count / sum(n["matrix"][i])
            style = "c" if i == j else "b" if share >= 0.1 else ""
            d.box(left + j * cell, top + i * cell, cell, cell, style, str(count) if count else "")
    d.text(left + size * cell / 2, top + size * cell + 16, "called", "small")
    d.width += 30  # for the last turned name
    return d.figure(
        "Each row is a class, each column what the network called its images. Green is right; orange "
        "marks mistakes made with "
        "a tenth of the class or more."
    )


_FORWARD, _BACKWARD = 84, 432
"""Where the two sides of the circuit begin."""
_MIDDLE = 108
_WIDE, _HIGH = 46, 38
"""A cell of the circuit has room for −0.93."""


def _circuit_row(d: Drawing, top: float, name: str, forward: list[Any], backward: list[Any]) -> float:
    """One value of the circuit: its numbers on the left, their gradients on the right; returns the
    lower end.
    """
    low = top
    for at, maps, style in ((_FORWARD, forward, "a"), (_BACKWARD, backward, "b")):
        x = float(at)
        for matrix in maps:
            rows, columns = len(matrix), len(matrix[0])
            classes = {
                (i, j): style for i in range(rows) for j in range(columns) if abs(matrix[i][j]) > 1e-9
            }
            x, end = d.grid(x, top, matrix, "", classes, show=_short, cell=_WIDE, high=_HIGH)
            x, low = x + 12, max(low, end)
    d.text(0, (top + low) / 2, name, "left small")
    return low


def _circuit_step(d: Drawing, top: float, down: str, up: str) -> None:
    """An arrow down on the left and one up on the right, with what each does."""
    left, right = _FORWARD + _MIDDLE, _BACKWARD + _MIDDLE
    d.arrow(left, top, left, top + 24)
    d.text(left + 12, top + 12, down, "left small")
    d.arrow(right, top + 24, right, top)
    d.text(right + 12, top + 12, up, "left small")


def _short(value: float) -> str:
    text = f"{value + 0.0:.2f}".rstrip("0").rstrip(".")
    return ("0" if text in ("-0", "") else text).replace("-", "−")


def circuit() -> str:
    """Every number of one training step: forward down on the left, backward up on the right."""
    n = _numbers("backpropagation")
    values, gradients = n["values"], n["gradients"]
    d = Drawing()
    left, right = _FORWARD + _MIDDLE, _BACKWARD + _MIDDLE
    d.text(left, 8, "forward: values ↓")
    d.text(right, 8, "backward: gradients ↑")
    stages: list[tuple[str, list[Any], list[Any], str]] = [
        ("image", [n["image"]], gradients["image"], ""),
        ("filters", n["filters"], gradients["filters"], ""),
        ("map", values["conv"], gradients["conv"], "convolution"),
        ("after ReLU", values["relu"], gradients["relu"], "ReLU"),
        ("after pool", values["pool"], gradients["pool"], "max-pool"),
        ("dense W", [n["dense"]], gradients["weight"], ""),
        ("logits", [[values["logits"]]], gradients["logits"], "dense"),
    ]
    top = 30.0
    for name, forward, backward, step in stages:
        if step:
            _circuit_step(d, top, step, step)
            top += 30
        top = _circuit_row(d, top, name, forward, backward) + 10
    _circuit_step(d, top, "softmax, −log", "p − t")
    p = values["probs"]
    d.text(left, top + 40, f"p = {_short(p[0])}, {_short(p[1])};  loss {n['loss']:.3f}")
    d.text(right, top + 40, "start here: 1")
    return d.figure(
        "Blue: what the forward pass computes, from the image down to the loss. Orange: how much the "
        "loss would change if a "
        "number grew by one, from the loss back up. Cells without colour are 0. Every gradient has "
        "the shape of its value."
    )


def inside() -> str:
    """From an image to its scores, for the front page; narrow enough to be whole on a phone."""
    c = _numbers("convolution")
    d = Drawing()
    pixels(d, 0, 52, 96, c["image"], "an image")
    for x, y, found in _in_rows(c["maps"][:6], 3, 56, 56):
        signed(d, 132 + x, 46 + y, 52, found)
    d.text(214, 166, "what six learned filters find", "small")
    d.arrow(102, 100, 126, 100)
    d.arrow(302, 100, 326, 100)
    best = sorted(zip(c["scores"], c["names"], strict=True), reverse=True)[:4]
    for k, (score, name) in enumerate(best):
        d.box(410, 50 + 26 * k, max(score, 0.2) * 9, 16, "c" if k == 0 else "a")
        d.text(404, 58 + 26 * k, name, "right small")
    return d.figure("An image, the maps that learned filters make of it, and the scores of the classes.")


PICTURES: dict[str, Callable[..., str]] = {
    f"learn_{f.__name__}": f
    for f in (
        pixels_table, mean_images, templates, scores, framed, edge_map, neighbourhood, feature_maps,
        loss_curve, learning_rates, training_curves, overfitting, confusion, circuit, inside,
    )
}  # fmt: skip
