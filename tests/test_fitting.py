import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.fitting import fit_once, load_weights, pick_precision, save_weights
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer


def fit(module, tmp_path, make_trainer=tiny_trainer, digest="d1"):
    return fit_once(module, TinyDataModule(), make_trainer, tmp_path, digest, seed=0, about={"model": "tiny"})


def no_trainer(folder):
    raise AssertionError("fitted again")


def test_fit_once_trains_once_per_digest(tmp_path):
    first, second = tiny_module(), tiny_module(seed=5)
    report = fit(first, tmp_path)
    again = fit(second, tmp_path, no_trainer)
    assert (report.reused, again.reused) == (False, True)
    assert report.best == again.best > 0.8
    windows = torch.from_numpy(TinyDataModule().windows("val"))
    assert torch.equal(first.eval()(windows), second.eval()(windows))


def test_fit_once_is_the_same_whatever_ran_before(tmp_path):
    first, second = tiny_module(), tiny_module()
    fit(first, tmp_path, digest="d1")
    torch.rand(100)
    fit(second, tmp_path, digest="d2")
    assert torch.equal(first.net.head.weight, second.net.head.weight)


def test_fit_once_keeps_the_best_epoch(tmp_path):
    """The last epochs are spoilt on purpose; the kept weights must not be theirs."""

    class Spoil(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                for value in module.net.parameters():
                    value.data.zero_()

    def make_trainer(folder):
        trainer = tiny_trainer(folder, epochs=4)
        trainer.callbacks.insert(0, Spoil())
        return trainer

    module = tiny_module(lr=1e-12)
    fit(module, tmp_path, make_trainer)
    assert module.net.head.weight.abs().sum() > 0


def test_fit_once_keeps_nothing_of_a_failed_fit(tmp_path):
    data = TinyDataModule()
    data.signals[:] = float("nan")
    with pytest.raises(FloatingPointError):
        fit_once(tiny_module(), data, tiny_trainer, tmp_path, "d1", seed=0, about={})
    assert not (tmp_path / "d1" / "fit.json").exists()
    assert not (tmp_path / "d1" / "net.pt").exists()
    assert fit(tiny_module(), tmp_path).reused is False


def test_fit_once_leaves_only_weights_and_their_story(tmp_path):
    fit(tiny_module(), tmp_path)
    files = {path.name for path in (tmp_path / "d1").rglob("*") if path.is_file()}
    assert files == {"net.pt", "fit.json", "about.json", "fit.lock"}
    assert json.loads((tmp_path / "d1" / "about.json").read_text()) == {"model": "tiny"}


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_weights(tiny_module(widths=(6,)).net, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="do not fit Cnn1d"):
        load_weights(tiny_module().net, tmp_path / "net.pt")


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tiny_module().net, tmp_path / "net.pt")


def test_weights_with_code_in_them_are_refused(tmp_path):
    torch.save({"head": print}, tmp_path / "net.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load_weights(tiny_module().net, tmp_path / "net.pt")


@pytest.mark.parametrize(("flags", "expected"), [({"amx_bf16": True}, "bf16-mixed"), ({"avx2": True}, "32-true")])
def test_precision_follows_the_hardware(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert pick_precision("auto") == expected
    assert pick_precision("16-mixed") == "16-mixed"


def test_a_lightning_checkpoint_gives_its_net(tmp_path):
    module = tiny_module()
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.fit(module, datamodule=TinyDataModule())
    fresh = tiny_module(seed=3)
    load_weights(fresh.net, Path(trainer.checkpoint_callback.best_model_path))
    assert torch.equal(fresh.net.head.weight, module.net.head.weight)


def test_precision_does_not_ask_the_card_for_a_fit_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert pick_precision("auto", "cpu") == "32-true"
