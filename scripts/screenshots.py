"""Opens every page of the built site in headless Chromium, at desktop and phone width, light and dark.

python scripts/screenshots.py [--out DIR] [PAGE...]

Run it after `make docs`; it needs chromium, chromedriver and selenium.

It writes a picture of each whole page, and prints faults of the layout: a page wider than the window,
on the desktop code that does not fit its column, a word that a table breaks, words in a picture that are
too small to read, a formula that is still TeX, an image that did not load, anything that comes from
another site.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, installed or not

from scripts.site.server import serving

SITE = Path(__file__).resolve().parent.parent / "build" / "site"
WIDTHS = {"desktop": 1280, "phone": 390}
FAULTS = """
const found = [];
const wide = document.documentElement.scrollWidth - arguments[0];
if (wide > 0) found.push(`${wide} px wider than the window`);
for (const e of document.querySelectorAll("article *")) {
  const box = e.getBoundingClientRect();
  if (e.closest(".formula, pre, code, .md-typeset__scrollwrap, .highlight, svg, .tabbed-labels")) continue;
  if (box.width && box.right > arguments[0] + 1) found.push(`${e.tagName} reaches ${box.right | 0} px`);
}
if (arguments[0] > 600) {  // on a phone long lines scroll
  const open = document.createElement("style");
  open.textContent = ".tabbed-block, details > * { display: block !important }";
  document.head.append(open);
  for (const code of document.querySelectorAll("article pre > code"))
    if (!code.closest(".printed") && code.clientWidth && code.scrollWidth > code.clientWidth + 1)
      found.push(`code of ${code.scrollWidth} px in ${code.clientWidth}: ${code.innerText.slice(0, 40)}`);
  open.remove();
}
for (const text of document.querySelectorAll(".picture svg text")) {
  const drawing = text.ownerSVGElement;
  const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  const size = scale * parseFloat(getComputedStyle(text).fontSize);
  if (scale && size < 8.9) { found.push(`words of ${size.toFixed(1)} px in a picture`); break; }
}
const broken = new Set();
for (const cell of document.querySelectorAll("article td, article th")) {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = document.createRange();
  while (texts.nextNode())
    for (const word of texts.currentNode.data.matchAll(/[\\p{L}\\d_]+/gu)) {
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      const lines = [...range.getClientRects()].map((box) => Math.round(box.top));
      if (new Set(lines).size > 1) broken.add(word[0]);
    }
}
if (broken.size) found.push(`tables break words: ${[...broken].slice(0, 8).join(", ")}`);
if (document.querySelector(".arithmatex")) found.push("a formula is TeX still");
if (document.querySelector("merror")) found.push("a formula is an error");
for (const image of document.images) if (!image.naturalWidth) found.push(`no picture ${image.src}`);
for (const e of performance.getEntriesByType("resource"))
  if (!/^(data|blob):/.test(e.name) && !e.name.startsWith(location.origin)) found.push(`fetches ${e.name}`);
return found;
"""


def find_driver() -> str:
    """The chromedriver on the PATH.  Without one selenium would download it, so this fails instead."""
    path = shutil.which("chromedriver")
    if path is None:
        raise SystemExit("no chromedriver; on Debian: apt-get install chromium chromium-driver")
    return path


def browser(width: int, dark: bool) -> Any:
    """A headless Chromium whose window has this width."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(find_driver()))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return driver


def wait_for_live(driver: Any) -> None:
    """Wait until the live page can be used, if it is the one."""
    from selenium.webdriver.support.ui import WebDriverWait

    idle = "return document.querySelector('.live')?.dataset.ready !== 'no'"
    WebDriverWait(driver, 60).until(lambda _: driver.execute_script(idle))


def main() -> None:
    """Exit status 1 if a page has a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "pages",
        nargs="*",
        help="for example ops/conv2d.html; by default all pages, except those of source files",
    )
    parser.add_argument("--out", type=Path, default=Path("build/screenshots"))
    args = parser.parse_args()
    every = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if p.name != "404.html")
    pages = args.pages or [p for p in every if not p.startswith("source/")]
    args.out.mkdir(parents=True, exist_ok=True)
    faults = 0
    with serving(SITE) as root:
        for look, width in WIDTHS.items():
            for dark in (False, True):
                driver = browser(width, dark)
                for page in pages:
                    driver.get(f"{root}/{page}")
                    wait_for_live(driver)
                    for fault in driver.execute_script(FAULTS, width):
                        faults += 1
                        print(f"{page}, {look}: {fault}", flush=True)
                    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
                    theme = "-dark" if dark else ""
                    name = f"{page.removesuffix('.html').replace('/', '-')}-{look}{theme}.png"
                    (args.out / name).write_bytes(base64.b64decode(shot["data"]))
                driver.quit()
    print(f"{len(pages)} pages, {faults} faults; pictures in {args.out}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
