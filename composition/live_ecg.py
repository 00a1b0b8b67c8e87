"""A deployed classifier over a running ECG: joins the stream's windows with the file's own runtime."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from composition.live_contract import LiveContract, read_contract
from datamodules.live_beats import Limits, LiveWindows, cut_live_beats, find_rpeaks
from datamodules.live_blocks import Block, BlockPlan, cut_blocks, cut_whole
from datamodules.live_filters import plan_blocks
from datamodules.live_gaps import Gap, split_at_gaps
from datamodules.live_resample import resample_pieces, resampling_delay_s
from datamodules.live_source import LiveSource, LiveSourceError
from datamodules.live_windows import cut_live_rr, cut_stretches, plan_stretches
from deploy.artifact import Session, find_target, load_artifact

BRIDGE_S = 0.1
"""Longest run of missing samples that is bridged; a longer one restarts everything."""

Cut = Callable[[BlockPlan], Iterator[Block | Gap]]


@dataclass(frozen=True, eq=False, slots=True)
class LiveModel:
    """A model file, ready to decide.

    Attributes
    ----------
    path : Path
        The file.
    contract : LiveContract
        What it says about itself.
    session : callable
        Maps normalised windows to logits.
    """

    path: Path
    contract: LiveContract
    session: Session


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveOptions:
    """What the person who runs a stream may choose.

    Attributes
    ----------
    resample : bool
        Whether a stream of another sampling frequency than the model's is resampled; otherwise it is refused.
    stride : int, optional
        Samples, or RR intervals, from one window to the next; windows do not overlap by default. Not for beats.
    thresholds : tuple of float, optional
        One for each class that can be there beside others; 0.5 by default.
    block_s : float
        How often R peaks are looked for, in seconds: shorter blocks decide sooner and cost more.
    """

    resample: bool = False
    stride: int | None = None
    thresholds: tuple[float, ...] | None = None
    block_s: float = 4.0


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes
    ----------
    time_s : float
        R peak, or start of the window, in seconds since the stream began.
    label : str
        The most probable class; where classes do not exclude each other, all above their thresholds, joined by "+".
    probability : float
        Of that class; the highest of them.
    delay_s : float
        Seconds of signal that had to arrive behind the R peak, or the end of the window.
    """

    time_s: float
    label: str
    probability: float
    delay_s: float


@dataclass(frozen=True, eq=False, slots=True)
class Update:
    """News of a stream.

    Attributes
    ----------
    arrived_s : float
        Seconds of the stream that this is about.
    decisions : list of Decision
        New decisions.
    rpeaks_s : ndarray of float64
        New R peaks.
    counts : dict of str to int
        Beats or windows without a decision, by reason.
    gap_s : tuple of two float, optional
        Missing signal, from and to; one gap may come in several parts that touch.
    opens : bool
        Whether everything starts anew here.
    compute_s : float
        Seconds from the arrival of the last samples to this news.
    """

    arrived_s: float
    decisions: list[Decision]
    rpeaks_s: NDArray[np.float64]
    counts: dict[str, int]
    gap_s: tuple[float, float] | None = None
    opens: bool = False
    compute_s: float = 0.0


def open_model(path: Path | str, threads: int = 1) -> LiveModel:
    """Load a model file into its runtime.

    Parameters
    ----------
    path : Path or str
        The file.
    threads : int, default 1
        Threads of the runtime.

    Returns
    -------
    LiveModel

    Raises
    ------
    ArtifactError
        If the file cannot be loaded, or does not say what a stream needs to know.
    """
    artifact = load_artifact(path)
    contract = read_contract(artifact)
    return LiveModel(artifact.path, contract, find_target(artifact.path).open_session(artifact.path, threads=threads))


def choose_leads(contract: LiveContract, lead_names: Sequence[str] | None) -> tuple[str, ...]:
    """Say which leads of a source the model reads.

    Parameters
    ----------
    contract : LiveContract
        The model's.
    lead_names : sequence of str, optional
        Leads to take in the place of the model's own.

    Returns
    -------
    tuple of str

    Raises
    ------
    LiveSourceError
        If their number does not fit, or a model of RR intervals is not told in which lead to look for R peaks.
    """
    if lead_names is None:
        if contract.cut == "rr":
            raise LiveSourceError(
                "the model reads RR intervals: say in which lead to look for R peaks, lead_names=[II]"
            )
        return contract.lead_names
    if len(lead_names) != len(contract.lead_names):
        raise LiveSourceError(
            f"lead_names names {len(lead_names)} leads, the model reads {len(contract.lead_names)}:"
            f" {list(contract.lead_names)!r}"
        )
    return tuple(lead_names)


def decide_stream(source: LiveSource, model: LiveModel, options: LiveOptions) -> Iterator[Update]:
    """Decide about a stream as it comes, in memory that does not grow.

    Decisions depend on the samples alone, not on the chunks in which they come: they are those of `decide_whole`.

    Parameters
    ----------
    source : LiveSource
        The stream, with the leads that the model reads.
    model : LiveModel
        The model.
    options : LiveOptions
        Choices.

    Returns
    -------
    iterator of Update
        As soon as it is known; nothing is read ahead.

    Raises
    ------
    LiveSourceError
        If the sampling frequency is not the model's and ``options.resample`` is not set.
    ValueError
        If an option does not fit.
    """
    to_fs = _check_fs(source.fs, model.contract, options)
    arrival = _Arrival()
    pieces = split_at_gaps(arrival.watch(source.chunks), round(BRIDGE_S * source.fs))
    limits, delay_s = source.limits_mv, 0.0
    if to_fs != source.fs:
        delay_s = resampling_delay_s(source.fs, to_fs)
        pieces, limits = resample_pieces(pieces, source.fs, to_fs, limits), None
    found = _find_windows(lambda plan: cut_blocks(pieces, plan), to_fs, limits, model.contract, options)
    return _answer(found, to_fs, model, options, delay_s, arrival)


def decide_whole(
    signal_mv: NDArray[np.float32], fs: float, model: LiveModel, options: LiveOptions, limits_mv: Limits | None = None
) -> Iterator[Update]:
    """Decide about a record that lies in memory: the offline path that a stream must agree with.

    Parameters
    ----------
    signal_mv : ndarray of float32, shape (leads, time)
        The leads that the model reads, in mV; NaN where samples are missing.
    fs : float
        Sampling frequency in Hz; the model's.
    model : LiveModel
        The model.
    options : LiveOptions
        Choices.
    limits_mv : tuple of two ndarray, optional
        See `LiveSource`.

    Returns
    -------
    iterator of Update

    Raises
    ------
    LiveSourceError, ValueError
        As `decide_stream`; also if the signal would have to be resampled.
    """
    if _check_fs(fs, model.contract, options) != fs:
        raise LiveSourceError(f"fs is {fs!r} Hz, the model's {model.contract.fs!r}: resample the record first")
    found = _find_windows(
        lambda plan: cut_whole(signal_mv, plan, round(BRIDGE_S * fs)), fs, limits_mv, model.contract, options
    )
    return _answer(found, fs, model, options, 0.0, _Arrival())


class _Arrival:
    """When the last samples arrived."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def watch(self, chunks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        for chunk in chunks:
            self.at = time.perf_counter()
            yield chunk


def _check_fs(fs: float, contract: LiveContract, options: LiveOptions) -> float:
    """Return the frequency to work at."""
    if contract.cut == "rr" or fs == contract.fs:  # intervals are in seconds
        return fs
    if not options.resample:
        raise LiveSourceError(
            f"the stream has fs {fs!r} Hz, but the model was trained at {contract.fs!r} Hz: use a model of that"
            f" frequency, or say resample=true"
        )
    return contract.fs


def _find_windows(
    cut: Cut, fs: float, limits_mv: Limits | None, contract: LiveContract, options: LiveOptions
) -> Iterator[LiveWindows | Gap]:
    """Cut the windows that the contract asks for."""
    if contract.cut == "stretches":
        plan = plan_stretches(contract.n_samples, options.stride or contract.n_samples)
        return cut_stretches(cut(plan), contract.n_samples)
    rules = contract.rules
    plan = plan_blocks(rules.filters, fs, options.block_s)
    found = find_rpeaks(cut(plan), fs, len(contract.lead_names), rules, plan, limits_mv)
    if contract.cut == "rr":
        return cut_live_rr(found, fs, contract.n_samples, options.stride or contract.n_samples, rules.max_rr_s)
    if options.stride is not None:
        raise ValueError(f"stride is {options.stride!r}, but the model decides about every beat: leave it out")
    return cut_live_beats(found, fs, rules)


def _answer(
    found: Iterable[LiveWindows | Gap],
    fs: float,
    model: LiveModel,
    options: LiveOptions,
    delay_s: float,
    arrival: _Arrival,
) -> Iterator[Update]:
    thresholds = _check_thresholds(model.contract, options.thresholds)
    nothing = np.empty(0)
    for item in found:
        if isinstance(item, Gap):
            yield Update(item.stop / fs, [], nothing, {}, gap_s=(item.start / fs, item.stop / fs))
            continue
        decisions: list[Decision] = []
        if len(item.starts):
            probabilities = find_probabilities(model, item.signal_mv)
            for row, (start, end) in enumerate(zip(item.starts.tolist(), item.ends.tolist(), strict=True)):
                label, probability = _name(probabilities[row], model.contract, thresholds)
                decisions.append(Decision(start / fs, label, probability, (item.known_at - end) / fs + delay_s))
        yield Update(
            item.known_at / fs,
            decisions,
            item.rpeaks / fs,
            item.counts,
            opens=item.opens,
            compute_s=time.perf_counter() - arrival.at,
        )


def find_probabilities(model: LiveModel, signal_mv: NDArray[np.float32]) -> NDArray[np.float64]:
    """Evaluate a model on windows.

    Parameters
    ----------
    model : LiveModel
        The model.
    signal_mv : ndarray of float32, shape (n, leads, time)
        Windows, not normalised.

    Returns
    -------
    ndarray of float64, shape (n, classes)
        Probabilities: they sum to 1 where classes exclude each other.
    """
    normalized = (signal_mv - model.contract.mean) / model.contract.std
    logits = model.session(np.ascontiguousarray(normalized, dtype=np.float32)).astype(np.float64)
    if not model.contract.exclusive:
        return np.exp(-np.logaddexp(0, -logits))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _check_thresholds(contract: LiveContract, thresholds: Sequence[float] | None) -> NDArray[np.float64]:
    if thresholds is None:
        return np.full(len(contract.class_names), 0.5)
    if contract.exclusive or len(thresholds) != len(contract.class_names):
        raise ValueError(
            f"thresholds={list(thresholds)!r}: expected one for each of {list(contract.class_names)!r}, and only for"
            f" a model whose classes do not exclude each other"
        )
    return np.array(thresholds, dtype=np.float64)


def _name(
    probabilities: NDArray[np.float64], contract: LiveContract, thresholds: NDArray[np.float64]
) -> tuple[str, float]:
    best = float(probabilities.max())
    if contract.exclusive:
        return contract.class_names[int(probabilities.argmax())], best
    above = [name for name, yes in zip(contract.class_names, probabilities >= thresholds, strict=True) if yes]
    return "+".join(above) or "none", best
