"""The site of the documentation, in a real browser, as files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browser import assert_loads_nothing, chrome_at, show, texts
from command import ROOT
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra [docs]")
SIZE = "const e = document.documentElement; return [e.clientWidth, e.scrollWidth]"
SMALLEST = 12.5
"""Size of text in pixels."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    subprocess.run(build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    return out


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[webdriver.Chrome]:
    with chrome_at(site / "index.html") as chrome:
        yield chrome


def test_pages_can_be_read_and_ask_nobody(site: Path, browser: webdriver.Chrome) -> None:
    pages = sorted({*site.rglob("*.html")} - {site / "404.html"})  # which has absolute links
    assert len(pages) > 15
    for width, scheme in ((400, "light"), (1400, "dark")):
        show(browser, width, scheme)
        for page in pages:
            browser.get(page.as_uri())
            where = f"{page.relative_to(site)} at {width}, {scheme}"
            inside, whole = browser.execute_script(SIZE)
            assert inside == whole, where
            found: list[dict[str, Any]] = texts(browser, "article")
            assert len(found) > 10, where
            poor = [t for t in found if t["contrast"] < 4.5 or t["size"] < SMALLEST]
            assert poor == [], where
    _search(browser, "plateau", "stop-plateau")
    assert_loads_nothing(browser)


def _search(browser: webdriver.Chrome, words: str, expected: str) -> None:
    """Search as a reader does, and wait for a result with these words."""
    browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys(words)
    results = "ol.md-search-result__list"

    def shown(chrome: webdriver.Chrome) -> bool:
        return expected in str(chrome.find_element(By.CSS_SELECTOR, results).text)

    WebDriverWait(browser, 60).until(shown)
