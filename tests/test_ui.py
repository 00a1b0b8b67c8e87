"""MLflow's own UI in a browser: a person must be able to tell teacher from student and before from after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.configs import ROOT
from tests.mlflow_server import serve
from tracking.documents import tell_stage
from tracking.store import initialise

CHROMIUM = Path(os.environ.get("LIGHTHEART_CHROMIUM", "/usr/bin/chromium"))
SWEEP = (
    "model=cnn1d_57k,cnn1d_124k",
    "model@compression.teacher=cnn1d_124k",
    "compression=distill_ptq_int8",
    "datamodule.source.n_patients=60",
    "trainer.max_epochs=1",
    "callbacks=quiet",
    "bootstrap.n_resamples=100",
    "latency_window_s.synthetic=0.05",
    "gate=report",
)
LONG_MS = 120_000

# The sweep alone takes minutes where other jobs run beside it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Address of a server that a real sweep has filled, its store, and the rows."""
    folder = tmp_path_factory.mktemp("ui")
    with serve(folder) as (_, uri):
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "train.py"), "-m", *SWEEP]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        store = initialise(uri)
        yield uri, store, store.read_rows()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}: name one in LIGHTHEART_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1920, "height": 1000})
    page.set_default_timeout(LONG_MS)
    yield page
    page.close()


@pytest.fixture
def shoot(page, tmp_path):
    """Keep a screenshot, in the folder that LIGHTHEART_SCREENSHOTS names."""
    folder = Path(os.environ.get("LIGHTHEART_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(name):
        page.wait_for_timeout(1500)
        path = folder / f"{name}.png"
        page.screenshot(path=str(path))
        assert path.stat().st_size > 10_000

    return shoot


def view_urls(uri, group):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, str(ROOT / "compare.py"), "--group", group, "--ui"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line.partition(": ")[2] for line in done.stdout.splitlines()]


def visit(page, address):
    """Open an address anew: the UI does not look at what changes behind the hash of one that is open."""
    page.goto("about:blank")
    page.goto(address)


def close_assistant(page):
    """MLflow opens a chat over a quarter of the window."""
    button = page.get_by_role("button", name="Close", exact=True)
    if button.count():
        button.first.click()


def test_a_person_finds_their_way_from_the_list_to_the_model_card(filled, page, shoot):
    uri, store, rows = filled
    assert [row.role for row in rows] == ["teacher", "student", "student", "student"] * 2
    view, compared = view_urls(uri, rows[0].group)
    int8 = next(row for row in rows if row.precision == "int8")
    run_url = f"{uri}/#/experiments/{store.experiment_id}/runs/{int8.run_id}"
    grid = page.locator(".ag-row")

    # The list: every row with its stage, its difference and its verdict, none folded away.
    visit(page, view)
    page.get_by_text(f"{len(rows)} matching runs").wait_for()
    close_assistant(page)
    for header in ("stage", "model", "recipe", "precision", "test/auroc_macro", "delta/test/auroc_macro"):
        page.get_by_test_id(f"sort-header-{header}").wait_for()
    shoot("1_list")
    for stage in ("teacher", "before", "after"):
        wanted = sum(tell_stage(row) == stage for row in rows)
        assert grid.get_by_text(stage, exact=True).count() == wanted

    # Filter by a tag.
    search = page.get_by_test_id("search-box").locator("input").or_(page.locator("input[placeholder^='metrics.rmse']"))
    search.first.fill(f"tags.is_row = 'true' and tags.role = 'student' and tags.group = '{rows[0].group}'")
    search.first.press("Enter")
    page.get_by_text("6 matching runs").wait_for()
    assert grid.get_by_text("teacher", exact=True).count() == 0
    shoot("2_filtered")

    # Two runs, compared.
    boxes = page.locator(".ag-row input[aria-label^='Press Space to toggle row selection']")
    for number in range(2):
        boxes.nth(number).click()
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    shoot("3_compared")
    visit(page, compared)
    page.get_by_text(f"Comparing {len(rows)} Runs from 1 Experiment").wait_for()

    # The run says what it is; its ROC plot and its model card.
    visit(page, run_url)
    page.get_by_text(f"after {int8.recipe}; simulated data").first.wait_for()
    shoot("4_run")
    visit(page, f"{run_url}/artifacts/roc.png")
    page.wait_for_function(
        "[...document.images].some(image => image.src.startsWith('blob:') && image.naturalWidth > 400)"
    )
    shoot("5_roc")
    page.get_by_text("model_card.md", exact=True).first.click()
    page.get_by_text("Not a medical device.").wait_for()
    page.get_by_text("Trained and evaluated on simulated signals.").wait_for()
    shoot("6_model_card")
    page.get_by_text("report.html", exact=True).first.click()
    frame = page.locator("iframe").first.content_frame
    frame.get_by_text("Checks of the gate").wait_for()
    assert frame.locator("img[alt='roc.png']").evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
    shoot("7_report")


def test_rows_are_nested_below_their_job(filled, page, shoot):
    uri, store, rows = filled
    query = "orderByKey=attributes.start_time&orderByAsc=false&startTime=ALL"
    visit(page, f"{uri}/#/experiments/{store.experiment_id}/runs?{query}")
    grid = page.locator(".ag-row")
    name = "synthetic_ptbxl cnn1d_57k distill_ptq_int8"
    grid.get_by_text(name).first.wait_for()
    close_assistant(page)
    assert grid.get_by_text("teacher", exact=False).count() == 0
    row = grid.filter(has_text=name).first
    row.get_by_role("button").first.click()
    grid.get_by_text("student cnn1d_57k distill", exact=True).first.wait_for()
    assert grid.get_by_text(rows[0].name, exact=True).count() == 1
    shoot("8_nested")
