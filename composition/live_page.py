"""A local page with pulse wave, heart rate and the place of the face; served to this machine only, without pictures."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from composition.live_pulse import PulseUpdate
from composition.live_pulse_record import PulseTotals, plain

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("live_page.html")
_REFRESH_S = 0.1
_START_S = 10.0
_STOP_S = 3.0
# Nothing is loaded from elsewhere, and no other site may look in.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Show = Callable[[PulseTotals, PulseUpdate, int], None]


class Board:
    """The newest state, from the thread that watches to the one that serves."""

    def __init__(self, title: str) -> None:
        self._state: dict[str, Any] = {
            "title": title,
            "hr_bpm": None,
            "quality": None,
            "frame": [4, 3],
            "box": None,
            "wave": [],
            "time_s": 0.0,
            "fps": 0.0,
            "dropped_frames": 0,
            "ended": False,
        }
        self._number = 0
        self.closed = False

    def show(self, totals: PulseTotals, update: PulseUpdate, n_dropped: int) -> None:
        """Take what is new."""
        state = {**self._state, "dropped_frames": n_dropped, "fps": totals.fps, "time_s": totals.arrived_s}
        state["ended"] = update.frame is None
        if update.frame is not None and update.crop is not None:
            height, width = update.frame.image.shape[:2]
            state["frame"] = [width, height]
            state["box"] = None if update.crop.missed else list(update.crop.box)
        if totals.latest is not None:
            state |= plain({"hr_bpm": totals.latest.hr_bpm, "quality": totals.latest.quality_db})
            state["wave"] = totals.latest.wave.round(5).tolist()
        self._state, self._number = state, self._number + 1

    async def events(self) -> AsyncIterator[str]:
        """Yield states as server-sent events, until the stream has ended."""
        seen, ended = -1, False
        while not ended:
            if self._number != seen:
                seen, state = self._number, self._state
                yield f"data: {json.dumps(state)}\n\n"
                ended = state["ended"]
            elif self.closed:
                return
            else:
                await asyncio.sleep(_REFRESH_S)


@contextmanager
def open_page(title: str, port: int) -> Iterator[tuple[str, Show]]:
    """Serve the page while a stream runs.

    Parameters
    ----------
    title : str
        What is shown.
    port : int
        Port on 127.0.0.1; 0 takes a free one.

    Yields
    ------
    address : str
        Of the page.
    show : callable
        To be called with the totals, each update and the number of dropped frames.

    Raises
    ------
    OSError
        If the port is taken.
    """
    import socket

    import uvicorn

    board = Board(title)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port {port} of {HOST} is taken: choose another, port=<number>") from error
        config = uvicorn.Config(
            make_app(board), log_level="warning", access_log=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
        thread.start()
        _wait(lambda: server.started or not thread.is_alive(), _START_S)
        if not server.started:
            raise OSError(f"the page on {HOST} did not start")
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}/", board.show
        finally:
            board.closed = True
            server.should_exit = True
            thread.join(_STOP_S)


def make_app(board: Board) -> Any:
    """Make the application: the page, and the states as they come; to requests that name this machine only."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response, StreamingResponse
    from starlette.routing import Route

    page = PAGE.read_text(encoding="utf-8")

    def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    def events(request: Request) -> Response:
        return StreamingResponse(board.events(), media_type="text/event-stream", headers=_HEADERS)

    # Another site's name may be made to point here, so that its scripts could read along.
    here = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", index), Route("/events", events)], middleware=[here])


def _wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
