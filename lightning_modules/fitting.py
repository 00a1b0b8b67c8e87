"""Fit a float model once per digest, and find it again."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from lightning_modules.classifier import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitReport:
    """What a fit cost and reached, and the run with its curves; ``reused`` when the weights were found."""

    digest: str
    weights: str
    monitor: str
    best: float
    epochs: int
    seconds: float
    run_id: str | None = None
    reused: bool = False


def pick_precision(precision: str, accelerator: str = "auto") -> str:
    """Resolve ``auto``: ``bf16-mixed`` where the device multiplies bfloat16 in hardware, else ``32-true``.

    On a CPU that lacks AVX512-BF16 and AMX, bfloat16 is emulated and several times *slower* than float32.
    """
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    flags = torch.cpu.get_capabilities()
    return "bf16-mixed" if flags.get("avx512_bf16") or flags.get("amx_bf16") else "32-true"


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a state dict, or the net of a Lightning checkpoint, into `net`: strictly, as data and never as code.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the weights are of another architecture, or of other leads or classes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" in state:
        own = {name: value for name, value in state["state_dict"].items() if name.startswith("net.")}
        state = {name.removeprefix("net."): value for name, value in own.items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        # One line for every tensor follows the title; the first says enough.
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"weights {str(path)!r} do not fit {type(net).__name__}: {first}") from None


def save_weights(net: nn.Module, path: Path) -> None:
    """Write the state dict of `net`, contiguous and on the CPU, in one atomic step."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def fit_once(
    module: Classifier,
    datamodule: pl.LightningDataModule,
    make_trainer: Callable[[Path], pl.Trainer],
    directory: Path,
    digest: str,
    seed: int,
    about: Mapping[str, Any],
    run_id: str | None = None,
) -> FitReport:
    """Fit `module`, keep its best epoch; or load what an earlier call with this digest kept.

    Parameters
    ----------
    module : Classifier
        On return its ``net`` holds the weights of the best epoch.
    datamodule : LightningDataModule
    make_trainer : callable
        Makes a trainer that writes its checkpoints below the given folder; called only when there is work to do.
    directory : Path
        One folder per digest is kept below it.
    digest : str
        Stands for everything that the weights depend on.
    seed : int
        Set before the fit, so that a fit gives the same weights whatever ran before it.
    about : mapping
        Written beside the weights: what they depend on.
    run_id : str, optional
        Tracked run that gets the curves.

    Returns
    -------
    FitReport

    Raises
    ------
    RuntimeError
        If the fit was interrupted: nothing is kept then.

    Notes
    -----
    Processes that want the same digest wait for one another: one of them fits, the others load.
    """
    folder = directory / digest
    folder.mkdir(parents=True, exist_ok=True)
    weights, report_path = folder / "net.pt", folder / "fit.json"
    lock = FileLock(folder / "fit.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is fitting %s: waiting for its weights", digest)
        lock.acquire()
    try:
        if report_path.is_file():
            load_weights(module.net, weights)
            report = FitReport(**{**json.loads(report_path.read_text()), "weights": str(weights), "reused": True})
            log.info("found the weights of %s (%s %.4f)", digest, report.monitor, report.best)
            return report
        start = time.perf_counter()
        pl.seed_everything(seed, workers=True, verbose=False)
        trainer = make_trainer(folder)
        checkpoint = trainer.checkpoint_callback
        if not isinstance(checkpoint, ModelCheckpoint) or checkpoint.monitor is None:
            raise ValueError("callbacks must hold a ModelCheckpoint with a monitor: it picks the weights to keep")
        trainer.fit(module, datamodule=datamodule)
        if trainer.interrupted:
            raise RuntimeError("the fit was interrupted; its weights are not kept")
        if checkpoint.best_model_score is None:
            raise RuntimeError(f"no epoch was validated, so there is no best {checkpoint.monitor} to keep")
        best_path = Path(checkpoint.best_model_path)
        module.load_state_dict(torch.load(best_path, map_location="cpu", weights_only=True)["state_dict"])
        best_path.unlink()
        save_weights(module.net, weights)
        report = FitReport(
            digest=digest,
            weights=str(weights),
            monitor=module.monitor,
            best=float(checkpoint.best_model_score),
            epochs=trainer.current_epoch,
            seconds=round(time.perf_counter() - start, 1),
            run_id=run_id,
        )
        (folder / "about.json").write_text(json.dumps(dict(about), indent=1, default=str))
        partial = report_path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(report), indent=1))
        partial.replace(report_path)
        return report
    finally:
        lock.release()
