"""The papers' tables as a browser shows them: on a desk, on a phone and on paper."""

import shutil

import pytest

from tests.configs import ROOT
from tests.table_examples import example_reports
from tracking.reports import write_reports

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
URL = "http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"
# What reaches beyond the window's right edge.
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(element => element.outerHTML.slice(0, 80))"""
TEXTS = 'selector => [...document.querySelectorAll(selector)].map(element => element.innerText.split("\\n")[0])'


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=120_000)
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("device", "width"), [("desktop", 1280), ("phone", 390)])
def test_a_browser_shows_every_table_in_the_papers_order(tmp_path, browser, device, width):
    reports = example_reports()
    write_reports(tmp_path, reports, URL)
    shots = ROOT / "build" / "screenshots" / "reports"
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(120_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{tmp_path}/index.html")
    assert page.evaluate(TEXTS, "td a") == [report.table.title for report in reports]
    assert page.evaluate(TEXTS, "h2") == list(dict.fromkeys(report.paper for report in reports))
    for name in ("index", *(report.table.id for report in reports)):
        page.goto(f"file://{tmp_path}/{name}.html")
        page.screenshot(path=shots / f"{name}-{device}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(OVERFLOWING) == [], name
        assert (shots / f"{name}-{device}.png").stat().st_size > 5000
    assert all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.slow
def test_a_phone_shows_every_figure_and_no_empty_one(tmp_path, browser):
    write_reports(tmp_path, example_reports(), URL)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"file://{tmp_path}/p3_distillation.html")
    assert page.locator("td.number:visible").count() == page.locator("td.number:not(.empty)").count() > 30
    assert page.locator("td.empty:visible").count() == 0
    assert page.locator("thead:visible").count() == 0
    page.emulate_media(media="print")
    # On paper the columns have their heads again.
    assert page.locator("thead:visible").count() == 1


@pytest.mark.slow
def test_a_name_that_is_too_long_would_be_seen(tmp_path, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content("<span>" + "x" * 200 + "</span>")
    assert page.evaluate(OVERFLOWING)
