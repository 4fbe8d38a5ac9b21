"""What the site is made of: code cut out of the sources, and links.  `make docs` builds the site itself."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from scripts.site.sources import ROOT, cpp_pieces, extract, python_pieces

CPP = """
#include "a.h"

template <typename T>
void declared(T x);

// Adds one.
template <typename T>
void add_one(T* x) {
    const char* brace = "}";  // }
    if (*x) { *x += 1; }
}

template <typename T>
__global__ void __launch_bounds__(256)
    a_kernel(T* x, int n) {
    add_one(x);
}

struct Pair {
    int first;
    int sum(int by) const { return first + by; }
};

void add_one(int* x, int* y) {
    for (;;) declared(add_one(x));
}

template void add_one(float*);
"""
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!\\)\[[^\]\n]*\]\(([^)\s]+)\)")


def test_cpp_functions() -> None:
    first, second = cpp_pieces(CPP, "add_one")
    assert first.startswith("// Adds one.\ntemplate")
    assert first.endswith("{ *x += 1; }\n}")
    assert second.splitlines()[0] == "void add_one(int* x, int* y) {"


def test_cpp_kernels_structs_and_members() -> None:
    (kernel,) = cpp_pieces(CPP, "a_kernel")
    assert kernel.splitlines()[:2] == ["template <typename T>", "__global__ void __launch_bounds__(256)"]
    (pair,) = cpp_pieces(CPP, "Pair")
    assert pair.endswith("};")
    assert cpp_pieces(CPP, "sum") == ["int sum(int by) const { return first + by; }"]


def test_cpp_members_lose_their_indent_around_preprocessor_lines() -> None:
    text = "class A {\n    void f() {\n#if X\n        g();\n#endif\n    }\n};\n"
    assert cpp_pieces(text, "f") == ["void f() {\n#if X\n    g();\n#endif\n}"]


@pytest.mark.parametrize("name", ["declared", "brace", "absent", "a"])
def test_cpp_names_that_are_not_defined(name: str) -> None:
    assert cpp_pieces(CPP, name) == []


def test_python_names() -> None:
    text = "@cache\ndef f():\n    return 1\n\nclass A:\n    def g(self):\n        return 2\n"
    assert python_pieces(text, "f") == ["@cache\ndef f():\n    return 1"]
    assert python_pieces(text, "A.g") == ["def g(self):\n    return 2"]
    assert python_pieces(text, "g") == []


def test_a_name_that_is_gone_is_an_error() -> None:
    assert extract("csrc/cpu/relu.cpp", "relu_forward").startswith(
        "template <typename T>\nvoid relu_forward("
    )
    with pytest.raises(LookupError, match=re.escape("csrc/cpu/relu.cpp defines no swish_forward")):
        extract("csrc/cpu/relu.cpp", "swish_forward")


def links(document: Path) -> list[str]:
    """The targets of a document's links, code left out."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    return LINK.findall(text)


def empty_sections(text: str) -> list[str]:
    """The headings of a document below which is nothing, and what announces a block that is empty."""
    text = re.sub(r"^```.*?^```", "code", text, flags=re.M | re.S)
    announced = re.findall(
        r"^.*:\n\n<!-- \w+: begin -->\s*(?:Not measured yet\.\s*)?<!-- \w+: end -->", text, re.M
    )
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    parts = re.split(r"^(#+) (.*)$", text, flags=re.M)[1:]
    levels = [len(level) for level in parts[::3]]
    return announced + [
        title
        for level, title, body, below in zip(
            levels, parts[1::3], parts[2::3], [*levels[1:], 0], strict=True
        )
        if not body.strip() and below <= level
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_announced_that_is_not_there(document: Path) -> None:
    assert not empty_sections(document.read_text(encoding="utf-8"))


def test_empty_sections_are_found() -> None:
    block = "<!-- b: begin -->\n\n<!-- b: end -->"
    empty = f"# A\n\n## B\n\n{block}\n\n## C\nText:\n\n{block}\n"
    assert empty_sections(empty) == [f"Text:\n\n{block}", "B"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document: Path) -> None:
    """Relative links of the documents lead to files; others are whole addresses."""
    for target in links(document):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc), target
        elif parts.path:
            made = document.is_relative_to(ROOT / "docs") and parts.path.endswith(
                ("architecture.md", "contributing.md", "changelog.md", "course-slides.html")
            )  # by the site's hooks
            assert made or (document.parent / parts.path).exists(), f"{document}: no {target}"


def test_the_menu_names_each_page_once() -> None:
    """The build itself checks that it leaves none out."""
    pages = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert "fused.md" in pages
    assert len(pages) == len(set(pages))


def test_links_are_found() -> None:
    assert "docs/images/speedup.png" in links(ROOT / "README.md")
    assert any(target.startswith("ops/") for target in links(ROOT / "docs/index.md"))


# ---- what makes the build fail; these tests need MkDocs ------------------------------------------------


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/site/hooks.py, imported as MkDocs does."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    return importlib.import_module("hooks")


def page_of(path: str) -> Any:
    """A page as MkDocs gives it to the hooks."""
    from mkdocs.structure.files import File

    return SimpleNamespace(file=File(path, "docs", "site", False), meta={})


def test_the_menu_and_the_table_have_each_operation_once(hooks: ModuleType) -> None:
    pages = sorted(f"ops/{path.name}" for path in (ROOT / "docs/ops").glob("*.md"))
    first, *sections = hooks.on_config({"nav": [{"Operations": "ops/index.md"}]})["nav"][0]["Operations"]
    listed = [page for section in sections for names in section.values() for page in names]
    assert sorted([first, *listed]) == pages
    table = re.findall(r"\]\((\w+)\.md\) \|", hooks._operations_table())
    assert table == [Path(page).stem for page in listed]


def test_a_page_without_a_section_is_refused(
    hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs/ops").mkdir(parents=True)
    (tmp_path / "docs/ops/swish.md").write_text("---\nops: [swish]\n---\n# swish\n")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    with pytest.raises(Exception, match=r"swish\.md: expected a summary, and a section of Convolution, "):
        hooks.on_config({"nav": []})


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("[a](other.md#part)", False),
        ("[a](gone.md)", True),
        ("[a](other.md#gone)", True),
        ("![a](gone.png)", True),
    ],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, text: str, fails: bool) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(text)
    (tmp_path / "docs/other.md").write_text("# Other\n\n## Part\n")
    config = load_config(
        str(ROOT / "mkdocs.yml"), docs_dir=str(tmp_path / "docs"), site_dir=str(tmp_path / "site"),
        nav=["index.md", "other.md"], hooks=[], plugins=[], extra_css=[], theme="mkdocs",
    )  # fmt: skip
    if fails:
        with pytest.raises(Abort, match="strict mode"):
            build(config)
    else:
        build(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ source csrc/cpu/relu.cpp swish }}", "csrc/cpu/relu.cpp defines no swish"),
        ("{{ picture swish }}", "no picture 'swish'"),
        ("{{ run python swish.py }}", "docs/tutorial_run.json has no run of 'python swish.py'"),
        ("{{ swish }}", "no directive 'swish'"),
        ("{{ lesson swish }}", "docs/learn/record.json has no program 'swish'"),
        ("{{ exercises swish }}", "no exercises examples/learn/tasks/swish.py"),
        ("so {{ value linear.swish .1f }} it is", "docs/learn/record.json has no number 'linear.swish'"),
    ],
)
def test_a_page_that_names_what_is_not_there(hooks: ModuleType, text: str, message: str) -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=re.escape(f"ops/page.md: {message}")):
        hooks.on_page_markdown(text, page_of("ops/page.md"))


def test_make_docs_counts_warnings() -> None:
    """mkdocs --quiet drops warnings before strict mode counts them."""
    (recipe,) = re.findall(r"^docs:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert "mkdocs build" in recipe
    assert "--quiet" not in recipe


def test_every_operation_is_known(hooks: ModuleType) -> None:
    """The build asks for a page for every operation of the contract, by its name without a direction."""
    names = hooks.operations()
    assert {"conv2d", "conv2d_relu", "relu", "sgd_step", "global_norm"} <= names
    assert not any(name.endswith(("_forward", "_backward")) for name in names)


def test_formulas(hooks: ModuleType) -> None:
    page = hooks.on_page_content('a <span class="arithmatex">\\(x_1 &lt; 2\\)</span> b', page_of("a.md"))
    assert page.startswith("a <math")
    assert "arithmatex" not in page
    assert "<msub>" in page


def test_a_formula_of_two_parts_can_stand_in_two_lines(hooks: ModuleType) -> None:
    long = "a_{i=1} = " + " + ".join(f"f(x={k})" for k in range(9))
    html = f'<div class="arithmatex">\\[{long}, \\qquad b = 2\\]</div>'
    shown = hooks.on_page_content(html, page_of("a.md"))
    assert (shown.count("<span>"), shown.count("<math")) == (2, 3)


def test_long_tables_of_measurements_are_folded(hooks: ModuleType) -> None:
    row = "<tr><td>1</td></tr>"
    for rows, folded in ((hooks.SHORT, False), (hooks.SHORT + 1, True)):
        html = f"<table><tr><th>net, batch</th></tr>{row * rows}</table>"
        assert ("<details>" in hooks.on_page_content(html, page_of("benchmarks.md"))) == folded
        assert hooks.on_page_content(html, page_of("report.md")) == html
    assert f"{hooks.SHORT + 1} rows, by net, batch" in hooks.fold_tables(html)


def test_plots_with_a_dark_version_are_shown_in_both(hooks: ModuleType) -> None:
    html = '<img alt="a" src="../images/speedup.png" />'
    both = hooks.on_page_content(html, page_of("a.md"))
    assert both.count("<img") == 2
    assert "images/speedup.png#only-light" in both
    assert "images/speedup-dark.png#only-dark" in both
    alone = html.replace("speedup", "no-such-plot")
    assert hooks.on_page_content(alone, page_of("a.md")) == alone


def test_every_plot_of_the_site_has_a_dark_version() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    shown = set(re.findall(r"\]\((?:\.\./)?images/([\w-]+)\.png\)", pages))
    dark = {path.stem.removesuffix("-dark") for path in (ROOT / "docs/images").glob("*-dark.png")}
    assert {"curves", "confusion_matrix", "speedup"} <= shown
    assert shown <= dark


def test_plain_operations_come_before_the_fused_ones(hooks: ModuleType) -> None:
    _, *sections = hooks.on_config({"nav": [{"Operations": "ops/index.md"}]})["nav"][0]["Operations"]
    listed = [page for section in sections for names in section.values() for page in names]
    assert listed[:2] == ["ops/conv2d.md", "ops/relu.md"]
    assert list(sections[-1]) == ["Fused"]
    assert "ops/conv2d_relu.md" in sections[-1]["Fused"]


def test_each_page_of_an_operation_says_why_and_begins_with_a_definition() -> None:
    for path in sorted((ROOT / "docs/ops").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.stem == "index":
            continue
        assert re.search(r"^sources:\n  Definition:", text, re.M), path
        if "section: Fused" not in text or path.stem == "fold_batch_norm2d":
            assert re.search(r"^# .*\n\n\*\*Why (it is|they are) there\.\*\*", text, re.M), path


def test_the_sources_of_an_operation_number_the_same_steps(hooks: ModuleType) -> None:
    pages = [page for pages in hooks._operation_pages().values() for page in pages]
    stepped = {path.stem: meta for path, meta in pages if "steps" in meta}
    assert {
        "conv2d",
        "max_pool2d",
        "relu",
        "dense",
        "batch_norm2d",
        "softmax_cross_entropy",
    } <= stepped.keys()
    for op, meta in stepped.items():
        for tab, listing in meta["sources"].items():
            code = "\n".join(extract(path, name) for path, names in listing.items() for name in names)
            for number, step in enumerate(meta["steps"], 1):
                assert f" Step {number}: {step}" in code, f"{op}, {tab}: no step {number}"
