"""The local page: who is answered, what is told, and what a browser shows of a simulated video."""

import asyncio
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from composition.live_models import open_pulse_model
from composition.live_page import HOST, Board, open_page
from composition.live_pulse import PulseOptions, PulseUpdate
from composition.live_pulse_record import PulseTotals
from composition.live_watch import WatchOptions, watch_video
from datamodules.live_video import LiveVideo, TimedFrame
from tests.configs import ROOT
from tests.live_pulse_models import write_pulse_model
from tests.video_trees import draw, fake_stage

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def end(show):
    show(PulseTotals(), PulseUpdate(None, None), 3)


def test_the_page_answers_this_machine_only_and_loads_nothing():
    with open_page("a <b> & c", 0) as (address, show):
        assert address.startswith(f"http://{HOST}:")
        with urllib.request.urlopen(address) as answer:
            text, headers = answer.read().decode(), answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "http://" not in text
        assert "https://" not in text
        other = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(other)
        end(show)
        with urllib.request.urlopen(f"{address}events") as answer:
            state = json.loads(answer.read().decode().removeprefix("data: "))
        assert (state["title"], state["dropped_frames"], state["ended"]) == ("a <b> & c", 3, True)
        # Numbers and a box, never a picture.
        assert set(state) == {
            "title", "hr_bpm", "quality", "frame", "box", "wave", "time_s", "fps", "dropped_frames", "ended",
        }  # fmt: skip
        with (
            pytest.raises(OSError, match="is taken: choose another, port="),
            open_page("two", int(address[:-1].rpartition(":")[2])),
        ):
            pass


def test_a_closed_board_ends_its_readers():
    board = Board("title")
    board.closed = True

    async def read():
        return [event async for event in board.events()]

    assert len(asyncio.run(read())) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_a_browser_shows_rate_wave_and_box(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    model = open_pulse_model(write_pulse_model(tmp_path / "green.onnx"))
    seen = threading.Event()
    addresses: list[str] = []

    def read():
        for number, image in enumerate(draw(8.0)[3]):
            if number == 200:
                seen.wait(120)  # the end comes once the browser has seen the face
            yield TimedFrame(number / 30, image)

    found: list[dict] = []
    ready = threading.Event()

    def announce(address):
        addresses.append(address)
        ready.set()

    video = LiveVideo("<simulated>", False, read)
    options = WatchOptions(page_port=0, announce=announce)
    thread = threading.Thread(
        target=lambda: found.append(watch_video(video, model, fake_stage(), PulseOptions(), options)), daemon=True
    )
    thread.start()
    assert ready.wait(60)
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=120_000)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(addresses[0])
        sync_api.expect(page.locator("#bpm")).to_have_text(re.compile(r"\d\d"), timeout=120_000)
        sync_api.expect(page.locator("#face")).to_have_text("found", timeout=120_000)
        shot = Path(ROOT) / "build" / "screenshots" / "live_page.png"
        page.screenshot(path=str(shot), full_page=True)
        drawn = (
            "id => { const c = document.getElementById(id), data = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return data.filter((v, i) => i % 4 == 3 && v).length }"
        )
        assert page.evaluate(drawn, "wave") > 500
        assert page.evaluate(drawn, "box") > 100
        bpm = int(page.text_content("#bpm") or "")
        assert page.text_content("#title") == "<simulated> | green.onnx"
        seen.set()
        sync_api.expect(page.locator("#state")).to_have_text("ended", timeout=120_000)
        browser.close()
    thread.join(60)
    assert bpm == pytest.approx(72, abs=6)
    assert errors == []
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {addresses[0].split("/")[2]}
    assert found[0]["problems"] == []
    assert shot.stat().st_size > 5000
