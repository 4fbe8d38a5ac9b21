"""The live page: its kernels agree with the numpy backend, and the page trains, draws, loads and saves."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicnn import Trainer, optim
from minicnn.app.commands.evaluate import main as evaluate
from minicnn.backends import get_backend
from minicnn.data import normalize
from minicnn.graph.graph import INPUT
from minicnn.inside import Trace, grad_cam
from minicnn.saved_model import load_model
from scripts.site import live_data, wasm
from scripts.site.server import serving

LIVE = wasm.MODULE.parent


def test_the_module_is_of_these_sources() -> None:
    assert wasm.outdated() == [], "run: python scripts/site/wasm.py"


# ---- the module, without a browser ---------------------------------------------------------------


def nothing_but(results: int) -> Callable[..., int | None]:
    """A function that does nothing, and returns 0 if there is something to return."""
    return lambda *_: 0 if results else None


class Kernels:
    """The WebAssembly module in wasmtime; arrays are copied into its memory and out again."""

    def __init__(self) -> None:
        from wasmtime import Func, FuncType, Instance, Module, Store

        self.store = Store()
        module = Module.from_file(self.store.engine, str(wasm.MODULE))
        kinds: list[FuncType] = [entry.type for entry in module.imports]  # type: ignore[misc]
        nothing = [Func(self.store, kind, nothing_but(len(kind.results))) for kind in kinds]
        self.exports = Instance(self.store, module, nothing).exports(self.store)
        self("_initialize")

    def __call__(self, name: str, *given: Any) -> Any:
        return self.exports[name](self.store, *given)

    def put(self, array: np.ndarray) -> int:
        address: int = self("allocate", max(1, array.nbytes))
        self.exports["memory"].write(self.store, array.tobytes(), address)
        return address

    def get(self, address: int, shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = self.exports["memory"].read(self.store, address, address + size)
        return np.frombuffer(bytes(raw), dtype).reshape(shape)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    pytest.importorskip(
        "wasmtime", reason="wasmtime, which runs WebAssembly without a browser, is not installed"
    )
    return Kernels()


def last(array: np.ndarray) -> np.ndarray:
    """(N,C,H,W) as the kernels have it in memory."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1), dtype=np.float32)


def first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 1)


def near(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "channels", "filters", "k", "padding"), [(8, 1, 32, 3, 1), (14, 6, 16, 5, 0)]
)
def test_convolution(
    kernels: Kernels, size: int, channels: int, filters: int, k: int, padding: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, channels, size, size)).astype("f4")
    weight = rng.standard_normal((filters, channels, k, k)).astype("f4")
    bias = rng.standard_normal(filters).astype("f4")
    backend, window = (
        get_backend("numpy"),
        {"stride": (1, 1), "padding": (padding, padding), "dilation": (1, 1)},
    )
    y = backend.conv2d_forward(x, weight, bias, groups=1, **window)
    dy = rng.standard_normal(y.shape).astype("f4")
    at_x, at_w, at_b = kernels.put(last(x)), kernels.put(last(weight)), kernels.put(bias)
    at_y, at_dy = kernels.put(np.zeros(y.shape, "f4")), kernels.put(last(dy))
    sizes = (3, channels, size, size, filters, k, padding)
    kernels("conv2d", at_x, at_w, at_b, at_y, *sizes)
    near(first(kernels.get(at_y, last(y).shape)), y)
    at_dx, at_dw, at_db = (kernels.put(np.zeros(a.shape, "f4")) for a in (x, weight, bias))
    kernels("conv2d_gradients", at_dy, at_x, at_w, at_dx, at_dw, at_db, *sizes)
    dx, dw, db = backend.conv2d_backward(dy, x, weight, groups=1, **window)
    near(first(kernels.get(at_dx, last(x).shape)), dx)
    near(first(kernels.get(at_dw, last(weight).shape)), dw)
    near(kernels.get(at_db, bias.shape), db)


# ---- the page, in a browser ----------------------------------------------------------------------


def page() -> str:
    """The part of index.md that is HTML, as a page of its own."""
    text = (LIVE / "index.md").read_text()
    found = re.search(r"<link.*</script>", text, re.DOTALL)
    assert found
    head = '<!doctype html><meta name="viewport" content="width=device-width">'
    return f'{head}<body data-md-color-scheme="default">{found[0]}'


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page on a server of this machine."""
    folder = tmp_path_factory.mktemp("site") / "live"
    shutil.copytree(LIVE, folder)
    (folder / "index.html").write_text(page())
    with serving(folder) as root:
        yield f"{root}/index.html"


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if importlib.util.find_spec("selenium") is None or shutil.which("chromedriver") is None:
        pytest.skip("selenium or chromedriver is not installed")
    from scripts.screenshots import browser as open_browser

    driver = open_browser(390, dark=False)
    downloads = tmp_path_factory.mktemp("downloads")
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    driver.downloads = downloads
    driver.get(address)
    until(driver, lambda: live(driver, "ready") == "yes")
    yield driver
    driver.quit()


def live(driver: Any, name: str) -> Any:
    """What the page notes of its own state."""
    problem = driver.execute_script(
        "const p = document.querySelector('.problem'); return p.hidden ? '' : p.textContent"
    )
    assert not problem, problem
    return driver.execute_script(f"return document.querySelector('.live').dataset.{name}")


def until(driver: Any, done: Callable[[], bool]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 120, poll_frequency=0.2).until(lambda _: done())


def click(driver: Any, name: str) -> None:
    driver.execute_script(f"document.getElementById('{name}').click()")


def choose_value(driver: Any) -> None:
    """Click on a value of the first convolution's maps, and wait for what it was computed from."""
    driver.execute_script(
        "delete document.querySelector('.live').dataset.explained;"
        "const maps = document.querySelectorAll('.stage .maps canvas')[2];"
        "const box = maps.getBoundingClientRect();"
        "maps.dispatchEvent(new MouseEvent('click', {clientX: box.left + 30, clientY: box.top + 30}))"
    )
    until(driver, lambda: live(driver, "explained") is not None)


def test_it_trains_and_what_it_saves_is_a_checkpoint(
    browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    click(browser, "train")
    until(browser, lambda: float(live(browser, "accuracy")) >= 0.95)
    click(browser, "train")
    until(browser, lambda: browser.find_element("id", "train").text == "Train")
    click(browser, "save")
    saved = Path(browser.downloads) / "minicnn.safetensors"
    until(browser, saved.exists)
    evaluate(["--backend", "numpy", "--checkpoint", str(saved)])
    accuracy = re.search(r"(\d+\.\d+) %", capsys.readouterr().out)
    assert accuracy
    assert float(accuracy[1]) > 85
    browser.find_element("id", "file").send_keys(str(saved))
    until(browser, lambda: live(browser, "steps") == "0")
    assert float(live(browser, "accuracy")) >= 0.85


def test_a_value_is_the_sum_that_the_page_shows(browser: Any) -> None:
    click(browser, "all")
    choose_value(browser)
    told = re.findall(r"-?\d+\.\d{4}", browser.find_element("id", "numbers").text)
    value, _, total = map(float, told)
    assert abs(value - total) < 2e-4
    framed = "return [...document.querySelectorAll('.stage .over')].map((over) => over.width > 0)"
    assert browser.execute_script(framed)[:2] == [True, True], "the value and its window have no frame"


def test_drawing_and_heat(browser: Any) -> None:
    from selenium.webdriver import ActionChains

    click(browser, "clear")
    pad = browser.find_element("id", "pad")
    before = browser.find_element("id", "bars").text
    ActionChains(browser).move_to_element(pad).click_and_hold().move_by_offset(0, 60).release().perform()
    until(browser, lambda: browser.find_element("id", "bars").text != before)
    drawn = browser.find_element("id", "bars").text
    click(browser, "next")  # a digit that it knows, so that something speaks for its answer
    until(browser, lambda: browser.find_element("id", "bars").text != drawn)
    for name in ("cam", "cover"):
        browser.execute_script("delete document.querySelector('.live').dataset.heat")
        click(browser, name)
        until(browser, lambda: live(browser, "heat") is not None)
        assert float(live(browser, "heat")) > 0
    choose_value(browser)  # the heat maps have let go of the activations
    inside = "return document.documentElement.scrollWidth <= innerWidth"
    assert browser.execute_script(inside), "the page is wider than a phone"


def test_a_checkpoint_of_other_images_takes_these_in_hand(browser: Any) -> None:
    browser.execute_script(
        "const s = document.getElementById('dataset'); s.value = 'fashion-mnist-sample'; s.onchange()"
    )
    until(browser, lambda: "lenet5" in browser.find_element("id", "state").text)
    click(browser, "train")
    click(browser, "slow")  # heard by the training under way
    until(browser, lambda: int(live(browser, "steps")) > 0)
    browser.find_element("id", "file").send_keys(str(Path(browser.downloads) / "minicnn.safetensors"))
    until(browser, lambda: "simple_cnn" in browser.find_element("id", "state").text)
    assert browser.execute_script("return document.getElementById('dataset').value") == "digits"
    assert browser.find_element("id", "train").text == "Train"
    click(browser, "slow")
    before = int(live(browser, "steps"))
    click(browser, "step")
    until(browser, lambda: int(live(browser, "steps")) == before + 1)


def test_a_file_of_something_else_is_refused_in_words(browser: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    browser.find_element("id", "file").send_keys(str(wrong))
    problem = browser.find_element("css selector", ".problem")
    until(browser, problem.is_displayed)
    assert problem.text == "This is a safetensors file, but no checkpoint of minicnn."


STEP = """
const [done, rows] = [arguments[1], arguments[0]];
const at = (name) => new URL(name, location).href;
(async () => {
  const [kernels, { Network }, { write }, { gradCam }] = await Promise.all(
    ["kernels.js", "network.js", "checkpoint.js", "inside.js"].map((name) => import(at(name))));
  await kernels.load(await (await fetch("kernels.wasm")).arrayBuffer());
  const { settings, sets } = await (await fetch("data.json")).json(), about = sets["fashion-mnist-sample"];
  const data = new Uint8Array(await (await fetch(about.file)).arrayBuffer());
  const count = about.train + about.test, size = about.imageShape.reduce((a, b) => a * b, 1);
  const images = rows.map((row) => data.subarray(row * size, (row + 1) * size));
  const labels = rows.map((row) => data[count * size + row]);
  const network = new Network(about, 3);
  const given = { dataset: about.file, lr: 0.1, momentum: 0.9, batchSize: 3 };
  const file = async (steps) =>
    [...new Uint8Array(await write(network, settings, { ...given, seed: 3, steps }).arrayBuffer())];
  const before = await file(0), trace = network.forward(network.batch(images));
  const { loss, dlogits } = kernels.softmaxCrossEntropy(trace.at(-1), labels);
  const numbers = (tensors) => tensors.map((tensor) => [tensor.shape, [...tensor.view()]]);
  const gradients = numbers(network.backward(trace, dlogits, true)), values = numbers(trace);
  const x = images.map((image) => [...image]);
  const heat = about.classNames.map((_, label) => [...gradCam(network, images[0], label).values]);
  network.step(images, labels, given);
  return { x, labels, loss, values, gradients, heat, before, after: await file(1) };
})().then(done, (error) => done(String(error)));
"""


def as_here(numbers: tuple[list[int], list[float]]) -> np.ndarray:
    """The page's (N,H,W,C) as (N,C,H,W)."""
    shape, values = numbers
    return first(np.array(values, "f4").reshape(shape)) if len(shape) == 4 else np.reshape(values, shape)


def test_a_whole_step_has_the_numbers_of_the_numpy_backend(browser: Any, tmp_path: Path) -> None:
    got = browser.execute_async_script(STEP, [0, 1, 2])
    assert isinstance(got, dict), got
    models = {}
    for name in ("before", "after"):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(got[name]))
        saved, models[name] = load_model(path, "numpy")
    images, labels = np.array(got["x"], "u1").reshape(3, *saved.image_shape), np.array(got["labels"])
    x = normalize(images, np.array(saved.mean), np.array(saved.std))
    trace = Trace(models["before"], x)
    loss, probs = models["before"].bound().softmax_cross_entropy_forward(trace.logits, labels)
    assert got["loss"] == pytest.approx(float(loss), abs=1e-5)
    numbers = [INPUT, *trace.named_values().values()]
    slopes = trace.gradients((probs - np.eye(10)[labels]) / 3)
    assert len(numbers) == len(got["values"])
    for number, value, gradient in zip(numbers, got["values"], got["gradients"], strict=True):
        near(as_here(value), trace.value(number))
        near(as_here(gradient), slopes[number])
    heat = grad_cam(models["before"], x[[0] * 10], np.arange(10))
    assert heat.max() > 0
    near(np.array(got["heat"]).reshape(heat.shape), heat)
    Trainer(models["before"], optim.SGD(lr=0.1, momentum=0.9)).step(x, labels)
    for name, weight in models["before"].state_dict().items():
        near(models["after"].state_dict()[name], weight)


def test_from_a_folder_it_says_what_it_needs(browser: Any, address: str, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page())
    browser.get(file.as_uri())
    assert "python -m http.server" in browser.find_element("css selector", ".problem").text
    browser.get(address)
    until(browser, lambda: live(browser, "ready") == "yes")


def test_saved_settings_are_those_of_a_run() -> None:
    assert json.loads((LIVE / "data.json").read_text())["settings"] == live_data.settings()


def test_the_record_of_the_images_fits_the_files() -> None:
    for about in json.loads((LIVE / "data.json").read_text())["sets"].values():
        count = about["train"] + about["test"]
        assert (LIVE / about["file"]).stat().st_size == count * (int(np.prod(about["imageShape"])) + 1)
