"""Blocks of a stream with what surrounds them, so that what acts on whole signals can act on a stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.live_gaps import Gap, Piece


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How a segment is cut, in samples.

    Attributes
    ----------
    step : int
        Length of a block, from one to the next.
    behind, ahead : int
        What is seen of the signal before and after it.
    """

    step: int
    behind: int
    ahead: int


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """One block and its surroundings.

    Attributes
    ----------
    start, stop : int
        Positions of the block since the stream began.
    seen_from, seen_to : int
        Positions of block and surroundings: what has arrived when the block is worked on.
    signal_mv : ndarray of float32, shape (leads, seen_to - seen_from)
        Block and surroundings in mV.
    bad : ndarray of bool, shape (seen_to - seen_from,)
        Samples without a usable value.
    opens, closes : bool
        Whether it is the first or the last block of its segment.
    """

    start: int
    stop: int
    seen_from: int
    seen_to: int
    signal_mv: NDArray[np.float32]
    bad: NDArray[np.bool_]
    opens: bool
    closes: bool

    @property
    def inside(self) -> slice:
        """Where the block lies in ``signal_mv``."""
        return slice(self.start - self.seen_from, self.stop - self.seen_from)


def cut_blocks(pieces: Iterable[Piece | Gap], plan: BlockPlan) -> Iterator[Block | Gap]:
    """Cut segments into blocks, in memory that does not grow.

    A block comes as soon as all that it may see has arrived, or the segment has ended. Blocks are counted from the
    start of their segment, so they do not depend on how the stream is cut into pieces.

    Parameters
    ----------
    pieces : iterable of Piece or Gap
        The stream, see `datamodules.live_gaps.split_at_gaps`.
    plan : BlockPlan
        Lengths.

    Yields
    ------
    Block or Gap
        Blocks of each segment in order; gaps where they were.
    """
    held: list[Piece] = []
    origin = start = end = 0  # where the segment and its next block begin, and how far it has arrived
    for piece in pieces:
        if isinstance(piece, Gap):
            yield from _close(held, origin, start, end, plan)
            held = []
            yield piece
            continue
        if not held:
            origin = start = piece.start
        held.append(piece)
        end = piece.start + len(piece.bad)
        if end <= start + plan.step + plan.ahead:
            continue
        held = [_join(held)]
        # Strictly: only the end of the segment tells whether a block that sees all of it is its last.
        while end > start + plan.step + plan.ahead:
            yield _make(held[0], origin, start, end, plan)
            start += plan.step
        held = [_forget(held[0], start - plan.behind)]
    yield from _close(held, origin, start, end, plan)


def cut_whole(signal_mv: NDArray[np.float32], plan: BlockPlan, bridge: int) -> Iterator[Block | Gap]:
    """Cut a signal that lies in memory as a whole into the blocks that `cut_blocks` makes of a stream.

    Parameters
    ----------
    signal_mv : ndarray of float32, shape (leads, time)
        The signal; NaN where samples are missing.
    plan : BlockPlan
        Lengths.
    bridge : int
        Longest run of missing samples that is bridged.

    Yields
    ------
    Block or Gap
        The same as for the stream.
    """
    missing: NDArray[np.bool_] = np.asarray(~np.isfinite(signal_mv).all(axis=0))
    edges = np.flatnonzero(np.diff(missing, prepend=False, append=False)).reshape(-1, 2)
    inner = (edges[:, 0] > 0) & (edges[:, 1] < len(missing))
    short = inner & (edges[:, 1] - edges[:, 0] <= bridge)
    whole = np.array(signal_mv, dtype=np.float32)
    for first, stop in edges[short]:
        share = np.arange(1, stop - first + 1) / (stop - first + 1)
        before, after = whole[:, first - 1, None], whole[:, stop, None]
        whole[:, first:stop] = before + share * (after - before)
    gaps = edges[~short]
    starts = np.concatenate([[0], gaps[:, 1]])
    stops = np.concatenate([gaps[:, 0], [len(missing)]])
    for index, (first, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if stop > first:
            segment = Piece(first, whole[:, first:stop], missing[first:stop])
            for start in range(first, stop, plan.step):
                yield _make(segment, first, start, stop, plan)
        if index < len(gaps):
            yield Gap(*gaps[index].tolist())


def _close(held: list[Piece], origin: int, start: int, end: int, plan: BlockPlan) -> Iterator[Block]:
    """Yield the blocks that see the end of their segment."""
    if held:
        rest = _join(held)
        for first in range(start, end, plan.step):
            yield _make(rest, origin, first, end, plan)


def _make(piece: Piece, origin: int, start: int, end: int, plan: BlockPlan) -> Block:
    """Make the block that begins at ``start``, of a piece that holds all that it may see of a segment."""
    stop = min(start + plan.step, end)
    seen_from, seen_to = max(origin, start - plan.behind), min(stop + plan.ahead, end)
    seen = slice(seen_from - piece.start, seen_to - piece.start)
    return Block(
        start=start,
        stop=stop,
        seen_from=seen_from,
        seen_to=seen_to,
        signal_mv=piece.signal_mv[:, seen],
        bad=piece.bad[seen],
        opens=start == origin,
        closes=stop == end,
    )


def _join(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    signal = np.concatenate([piece.signal_mv for piece in pieces], axis=1)
    return Piece(pieces[0].start, signal, np.concatenate([piece.bad for piece in pieces]))


def _forget(piece: Piece, before: int) -> Piece:
    """Drop what lies before a position."""
    drop = max(0, before - piece.start)
    # A copy, for a view would hold on to what is dropped.
    return Piece(piece.start + drop, piece.signal_mv[:, drop:].copy(), piece.bad[drop:].copy())
