"""A page in a real browser."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --autoplay-policy="
    "no-user-gesture-required"
)
# Each text with its size and its contrast (WCAG 2.2) to the nearest background behind it.
TEXTS = """
const parse = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => {
  const [r, g, b] = parse(colour).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const opaque = colour => { const c = parse(colour); return c.length < 4 || c[3] === 1; };
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (opaque(colour)) return colour;
  }
};
return [...document.querySelector(arguments[0]).querySelectorAll('*')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    const [a, b] = [light(style.color), light(behind(e))].sort((x, y) => y - x);
    return {text: e.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize),
            contrast: (a + 0.05) / (b + 0.05), left: box.left, right: box.right};
  });
"""


@contextmanager
def chrome_at(page: Path) -> Iterator[webdriver.Chrome]:
    """A browser that shows the page; the test is skipped where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for switch in [*SWITCHES.split(), f"--user-data-dir={profile}"]:
            options.add_argument(switch)
        chrome = webdriver.Chrome(options, Service(DRIVER))
        try:
            chrome.get(page.as_uri())
            yield chrome
        finally:
            chrome.quit()


def show(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def assert_loads_nothing(browser: webdriver.Chrome) -> None:
    """Check that the page had no errors and made no requests; works once."""
    assert _log(browser, "browser") == []
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # The browser's own first page has requests, too.
    ours = [one for one in requests if not one["documentURL"].startswith("chrome")]
    asked = [one["request"]["url"] for one in ours]
    assert any(url.startswith("file:") for url in asked)  # the log does tell of requests
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def assert_can_be_read(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Check that all text is large enough, has contrast and is within the page."""
    page = "const e = document.documentElement; return [e.clientWidth, e.scrollWidth]"
    inside, whole = browser.execute_script(page)
    assert width - 20 <= inside == whole  # there is room for a scroll bar, but none below
    found = texts(browser)
    assert len(found) > 100
    assert [text for text in found if text["size"] < 15] == []
    assert [text for text in found if text["contrast"] < 4.5] == []
    assert [text for text in found if text["left"] < 0 or text["right"] > inside] == []
    body = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    dark = sum(map(int, re.findall(r"\d+", body)[:3])) < 3 * 128
    assert dark == (scheme == "dark")


def texts(browser: webdriver.Chrome, inside: str = "body") -> list[dict[str, Any]]:
    """All texts within an element, each with its size, its contrast and where it is."""
    found: list[dict[str, Any]] = browser.execute_script(TEXTS, inside)
    return found


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries
