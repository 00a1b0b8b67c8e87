import numpy as np
import pytest

from deploy import measure
from deploy.measure import time_interleaved


class Counter:
    """Counts a joule at every second reading: what a block uses, and nothing between blocks."""

    def __init__(self, readable=True, joule=1.0):
        self.readable, self.joule, self.joules, self.n = readable, joule, 0.0, 0

    def update(self):
        self.n += 1
        self.joules += self.joule if self.n % 2 == 0 else 0.0


def time_two(monkeypatch, counter):
    monkeypatch.setattr(measure, "Rapl", lambda: counter)
    signals = [np.zeros((1, 2, 8), np.float32)] * 2
    return time_interleaved([lambda signal: signal] * 2, signals, window_s=0.05, warmup=2)


def test_energy_of_a_file_is_that_of_its_own_blocks(monkeypatch):
    for row in time_two(monkeypatch, Counter()):
        assert row["energy_mj"] * row["n"] == pytest.approx(1e3 * len(row["block_p50_ms"]))


@pytest.mark.parametrize("counter", [Counter(readable=False), Counter(joule=float("nan"))])
def test_energy_that_the_machine_does_not_show_is_none(monkeypatch, counter):
    assert {row["energy_mj"] for row in time_two(monkeypatch, counter)} == {None}
