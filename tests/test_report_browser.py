"""The report in a browser, wide and on a phone: numbers as in the record, nothing loaded, cut, or scrolling sideways.

It needs Debian's `chromium` and `chromium-driver`, and selenium.
"""

import json
import shutil

import pytest

from mowst.reporting.table import ordered, percent
from mowst.run import command

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium (Debian's package chromium)"),
    pytest.mark.skipif(DRIVER is None, reason="there is no chromedriver (Debian's package chromium-driver)"),
]
WIDTHS = {"wide": 1400, "phone": 390}

OUTSIDE = """return [...document.querySelectorAll('body *')]
  .filter(each => !each.closest('script, thead, svg') && each.getClientRects().length)
  .map(each => [each.tagName, each.textContent.slice(0, 40), each.getBoundingClientRect()])
  .filter(([, , box]) => box.width && (box.right > innerWidth + 1 || box.left < -1))
  .map(([tag, words]) => `${tag} ${words}`)"""

# Words of a chart that leave its drawing, or lie over each other: ticks of one axis, titles, the legend.
CUT = """return [...document.querySelectorAll('.chart')].flatMap(chart => {
  const frame = chart.getBoundingClientRect();
  return [...chart.querySelectorAll('.xtick text, .ytick text, .xtitle, .ytitle, .legendtext')]
    .filter(each => each.textContent.trim())
    .map(each => [each.textContent, each.getBoundingClientRect()])
    .filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1
      || box.top < frame.top - 1)
    .map(([words]) => `${chart.dataset.chart}: ${words}`)
})"""
OVER = """return [...document.querySelectorAll('.chart')].flatMap(chart => {
  const found = [...chart.querySelectorAll('.xtick text, .ytick text, .xtitle, .ytitle, .legendtext')]
    .filter(each => each.textContent.trim() && !(each.getAttribute('transform') || '').match(/rotate\\((?!0)/))
    .map(each => [each.textContent, each.getBoundingClientRect()]);
  return found.flatMap(([one, a], place) => found.slice(place + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
    .map(([other]) => `${chart.dataset.chart}: ${one} over ${other}`));
})"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("browser") / "run"
    command(["--epochs", "30", "--seeds", "2", "--quiet", "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as found:
        yield found


@pytest.fixture(params=["light", "dark"])
def scheme(request, browser):
    media = {"features": [{"name": "prefers-color-scheme", "value": request.param}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    return request.param


@pytest.fixture(params=WIDTHS)
def page(request, browser, scheme, finished):
    size = {"width": WIDTHS[request.param], "height": 900, "deviceScaleFactor": 1, "mobile": request.param == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{finished / 'report.html'}")
    return browser


def test_the_page_shows_the_record_whole_and_loads_nothing(page, finished, scheme):
    assert page.execute_script("return document.documentElement.dataset.drawn") == "yes"
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    record = json.loads((finished / "result.json").read_text())
    rows = page.execute_script(
        "return [...document.querySelector('table').tBodies[0].rows].map(row => [...row.cells].map(c => c.innerText))"
    )
    for name, row in zip(ordered(record), rows, strict=True):
        assert row[1:3] == [percent(*record["scores"][name][split], alone=False) for split in ("val", "test")]
    best = page.execute_script("return document.querySelector('.use').innerText")
    assert f"{max(record['scores'][name]['val'][0] for name in record['parameters']):.2f}" in best or "average" in best
    drawn = page.execute_script("return [...document.querySelectorAll('.chart')].map(c => c.data?.length ?? 0)")
    assert len(drawn) >= 8
    assert min(drawn) > 0
    curve = page.execute_script("return document.querySelectorAll('.chart')[1].data.at(-1).y[0]")
    assert curve == record["scores"]["routed"]["test"][0]
    dark = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 23, 29)") == (scheme == "dark")


def test_nothing_is_cut_lies_over_another_or_scrolls_sideways(page):
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    for script in (OUTSIDE, CUT, OVER):
        assert page.execute_script(script) == []
