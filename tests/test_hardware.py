"""What the CPU can do, from the flags that torch reports."""

import pytest
import torch

from deploy.hardware import multiplies_int8


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_vnni": False, "avx_vnni": False}, False),
        ({"avx2": True, "avx_vnni": True}, True),
        ({"avx512_vnni": True}, True),
        ({"neon": True}, False),
        ({"neon": True, "dot": True}, True),
    ],
)
def test_int8_products_by_the_flags_of_the_cpu(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert multiplies_int8() is expected
