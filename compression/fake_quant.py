"""Simulate in training what a quantizer will do to the exported file, without a trace in the net's weights."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_WEIGHTED = ("conv1d", "conv2d", "linear")
# Where two activations meet, each is read in 8 bits.
_MEETING = ("matmul", "bmm", "add", "mul", "cat")
_MOMENTUM = 0.1
_LEVELS = 255
_TINY = 1e-8


def quantize_weight(weight: Tensor) -> Tensor:
    """Round a weight (out, ...) to symmetric int8 with one scale per output channel; gradients pass straight through.

    A batch norm that is folded later scales a channel's weight and its scale alike: the integers stay the same.
    """
    values = weight.detach().float()
    scale = values.abs().flatten(1).amax(dim=1).clamp(min=_TINY) / 127
    zero = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight.float(), scale, zero, 0, -127, 127).to(weight.dtype)


def quantize_activation(signal: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round a tensor to 256 levels between `low` <= 0 and `high` >= 0; gradients pass straight through inside."""
    scale = ((high - low) / _LEVELS).clamp(min=_TINY)
    zero = (-low / scale).round().clamp(0, _LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(signal.float(), scale, zero, 0, _LEVELS).to(signal.dtype)


class Int8Simulation:
    """Let a net compute as its int8 export would; a context manager.

    Convolutions and linear layers read weights in symmetric int8 per channel and activations in asymmetric 8 bits;
    additions, products and concatenations of activations read 8 bits too. Each place has a running range, found by its
    position in the order of calls. Names, weights and modules of the net stay as they are, so that its state dict is
    that of the plain net at any time.

    Parameters
    ----------
    net : nn.Module
        Its ``forward`` is replaced until the end.

    Attributes
    ----------
    frozen : bool
        Whether batch norms keep their statistics and the ranges stay where they are.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.frozen = False
        self.ranges: list[tuple[Tensor, Tensor]] = []
        self._norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._place = 0
        self._calibrating = False
        # What was rounded in this pass already; kept alive, so that no other tensor gets its id.
        self._rounded: dict[int, Tensor] = {}

    def __enter__(self) -> "Int8Simulation":
        """Begin to simulate."""
        self.net.forward = self._forward
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the net its own forward back."""
        del self.net.forward
        self._rounded.clear()

    def calibrate(self, windows: Tensor, batch_size: int = 64) -> None:
        """Begin with the extremes of windows (n, leads, time), in evaluation mode."""
        training = self.net.training
        self._calibrating = True
        with torch.no_grad():
            for batch in windows.split(batch_size):
                self.net.eval()(batch)
        self._calibrating = False
        self.net.train(training)

    def _forward(self, signal: Tensor) -> Tensor:
        if self.frozen:
            for norm in self._norms:
                norm.eval()
        self._place = 0
        self._rounded.clear()
        with _Rounding(self):
            return type(self.net).forward(self.net, signal)

    def read(self, signal: Tensor) -> Tensor:
        """Round what an operator reads."""
        if id(signal) in self._rounded:
            return signal
        place, self._place = self._place, self._place + 1
        low, high = self._range(place, signal.detach().float())
        return self.note(quantize_activation(signal, low.to(signal.device), high.to(signal.device)))

    def note(self, signal: Tensor) -> Tensor:
        """Remember that a tensor is rounded."""
        self._rounded[id(signal)] = signal
        return signal

    def _range(self, place: int, signal: Tensor) -> tuple[Tensor, Tensor]:
        known = self.ranges[place] if place < len(self.ranges) else None
        if known is not None and not self._calibrating and (self.frozen or not self.net.training):
            return known
        # Zero is always among the levels: padding is exact.
        low, high = (end.clamp(**limit) for end, limit in zip(signal.aminmax(), ({"max": 0}, {"min": 0}), strict=True))
        if known is None:
            self.ranges.append((low, high))
        elif self._calibrating:
            self.ranges[place] = torch.minimum(known[0], low), torch.maximum(known[1], high)
        else:
            own = (end.to(low.device) for end in known)
            self.ranges[place] = tuple(  # type: ignore[assignment]
                old.lerp(new, _MOMENTUM) for old, new in zip(own, (low, high), strict=True)
            )
        return self.ranges[place]


class _Rounding(TorchFunctionMode):
    """Rounds what the operators of one forward pass read."""

    def __init__(self, simulation: Int8Simulation) -> None:
        super().__init__()
        self.simulation = simulation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        simulation = self.simulation
        if name in _WEIGHTED:
            signal, weight, *rest = args
            args = (simulation.read(signal), quantize_weight(weight), *rest)
        elif name == "dropout":
            # Before the survivors are scaled up: the exported file knows no dropout.
            signal, *rest = args
            return simulation.note(func(simulation.read(signal), *rest, **(kwargs or {})))
        elif name == "cat":
            args = ([simulation.read(item) for item in args[0]], *args[1:])
        elif name in _MEETING and all(_is_activation(item) for item in args[:2]):
            args = (*(simulation.read(item) for item in args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


def _is_activation(item: Any) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point() and item.ndim > 1
