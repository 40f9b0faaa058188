"""Inference and training step of a network, as calls to time and to count memory of."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from peak_memory import peak_bytes, weight_bytes
from torch import Tensor, nn


@dataclass(frozen=True)
class Runner:
    """A network with its input.

    Attributes:
        network: Returns a tensor or a tuple of them.
        images: (N, 3, H, W), in the network's memory format.
        dtype: With bfloat16 autocast is on; the weights stay float32.
    """

    network: nn.Module
    images: Tensor
    dtype: torch.dtype = torch.float32

    def inference(self) -> Callable[[], object]:
        """Put the network into evaluation mode; the call computes its outputs and their sum."""
        self.network.eval()
        self.network.zero_grad(set_to_none=True)

        def call() -> Tensor:
            with torch.no_grad(), self._autocast():
                return self._sum()

        return call

    def training(self) -> Callable[[], object]:
        """Put the network into training mode; the call is forward, backward of the outputs' sum, and a step of SGD.

        The learning rate is 0: the same arithmetic, but no weights that grow without bound, and with them slow numbers.
        """
        self.network.train()
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0., momentum=.9, weight_decay=1e-4)

        def call() -> None:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = self._sum()
            loss.backward()
            optimizer.step()

        return call

    def peak(self, call: Callable[[], object]) -> int:
        """Bytes of the weights and of what the second of two calls needs on top: by then the optimiser has its momentum."""
        def twice() -> None:
            call()
            call()

        return weight_bytes(self.network) + peak_bytes(twice, str(self.images.device))

    def _sum(self) -> Tensor:
        outputs = self.network(self.images)
        return sum_of(outputs if isinstance(outputs, (tuple, list)) else (outputs, ))

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.images.device.type, self.dtype, enabled=self.dtype != torch.float32)


def sum_of(outputs: Iterable[Tensor]) -> Tensor:
    """The sum of all values of all outputs, in float32: nothing can be skipped."""
    return torch.stack([output.sum(dtype=torch.float32) for output in outputs]).sum()
