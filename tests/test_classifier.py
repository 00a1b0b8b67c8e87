from functools import partial

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_modules.classifier import bce_loss, softmax_loss
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer


def test_classifier_learns_and_logs_every_class(tmp_path):
    module = tiny_module()
    trainer = tiny_trainer(tmp_path, epochs=8)
    trainer.fit(module, datamodule=TinyDataModule())
    logged = trainer.callback_metrics
    assert logged["val/auroc_macro"] > 0.9
    assert {"val/auroc_a", "val/auroc_b", "val/loss", "train/loss"} <= set(logged)


def test_classifier_checkpoint_loads_as_data_only(tmp_path):
    module = tiny_module()
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.fit(module, datamodule=TinyDataModule())
    state = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    fresh = tiny_module(seed=1)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.net.head.weight, module.net.head.weight)


def test_classifier_steps_the_scheduler_per_batch(tmp_path):
    module = tiny_module(scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01))
    trainer = tiny_trainer(tmp_path, epochs=2)
    trainer.fit(module, datamodule=TinyDataModule())
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == trainer.global_step == 10
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.01 / 10


def test_classifier_stops_on_a_loss_that_is_not_finite(tmp_path):
    data = TinyDataModule()
    data.signals[3] = float("nan")
    with pytest.raises(FloatingPointError, match="loss is nan in epoch 0"):
        tiny_trainer(tmp_path).fit(tiny_module(), datamodule=data)


def test_classifier_refuses_an_unknown_memory_format():
    with pytest.raises(ValueError, match="memory_format 'nhwc' must be one of"):
        tiny_module(memory_format="nhwc")


def test_classifier_of_exclusive_classes_learns_by_softmax(tmp_path):
    module, data = tiny_module(exclusive=True), TinyDataModule(exclusive=True)
    trainer = tiny_trainer(tmp_path, epochs=8)
    trainer.fit(module, datamodule=data)
    module.eval()
    signal, targets = torch.from_numpy(data.windows("val")), torch.from_numpy(data.all_targets[data.splits["val"]])
    logits = module(signal).detach()
    probability = logits.softmax(dim=1)[:, 1].numpy()
    logged = trainer.callback_metrics
    assert logged["val/auroc_macro"] > 0.9
    assert logged["val/auroc_b"] == pytest.approx(roc_auc_score(targets[:, 1], probability), abs=1e-6)
    picked = logits.log_softmax(dim=1)[targets.bool()]
    assert logged["val/loss"] == pytest.approx(-float(picked.mean()), rel=1e-5)


def test_classifier_takes_the_loss_of_its_classes_unless_told():
    assert tiny_module().criterion is bce_loss
    assert tiny_module(exclusive=True).criterion is softmax_loss
    assert tiny_module(exclusive=True, criterion=bce_loss).criterion is bce_loss
