"""Training steps in a browser: the live page's kernels beside TensorFlow.js, in turn on one page.

    npm install --prefix build/tfjs @tensorflow/tfjs
    python benchmarks/browser.py [--rounds 10] [--batch 32]

It needs chromium, chromedriver and selenium.  TensorFlow.js runs on its backends cpu and webgl; its wasm
backend cannot train a convolution.  Both sides train the same nets on the same batch.
Writes benchmarks/results/browser.json.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from paired import machine, save

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PACKAGES = ROOT / "build" / "tfjs" / "node_modules" / "@tensorflow"
BACKENDS = ("cpu", "webgl")
START = """
const go = (given) => window.measure
    ? measure(...given).catch(String).then((found) => { window.measured = found; })
    : setTimeout(go, 50, given);
go([...arguments]);
"""


def main() -> None:
    from scripts.screenshots import browser
    from scripts.site.server import serving

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    if not PACKAGES.is_dir():
        raise SystemExit(f"no {PACKAGES}: npm install --prefix build/tfjs @tensorflow/tfjs")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "docs" / "live", Path(folder) / "live")
        shutil.copy(ROOT / "benchmarks" / "browser.html", folder)
        (Path(folder) / "tfjs").symlink_to(PACKAGES)
        with serving(Path(folder)) as root:
            driver = browser(1280, dark=False)
            driver.get(f"{root}/browser.html")
            driver.execute_script(START, list(BACKENDS), args.batch, args.rounds)
            while (measured := driver.execute_script("return window.measured")) is None:
                time.sleep(0.5)
            version = {
                "browser": driver.capabilities["browserVersion"],
                "TensorFlow.js": driver.execute_script("return tf.version.tfjs"),
            }
            driver.quit()
    if isinstance(measured, str):
        raise SystemExit(measured)
    save("browser", {"machine": machine(1) | version, "batch": args.batch, "nets": measured})


if __name__ == "__main__":
    main()
