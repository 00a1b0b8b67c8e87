"""What the CPU of this machine can do."""

import torch

# Products of 8-bit numbers summed up in one instruction: x86's VNNI and AMX, Arm's dot products and matrix products.
_INT8_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "dot", "i8mm")


def multiplies_int8() -> bool:
    """Tell whether the CPU has instructions for int8 products, without which int8 is hardly faster than float32."""
    flags = torch.cpu.get_capabilities()
    return any(flags.get(name) for name in _INT8_PRODUCTS)
