"""Predicted masks in every form, and tensors of every process brought to the main one as plain bytes."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_comm_device, get_dist_info
from torch import Tensor
from torch import distributed as torch_dist


def as_masks(masks: Any) -> Tensor | list[dict]:
    """Return a tensor or array as boolean masks on its device, and run-length codes as they are.

    Floating-point numbers above 0.5 belong to the mask, as by mmdet's default `mask_thr_binary`; of integers, those that are
    not 0.
    """
    if isinstance(masks, list | tuple) and (not masks or isinstance(masks[0], dict)):
        return list(masks)
    masks = torch.as_tensor(masks).detach()
    return masks > .5 if masks.is_floating_point() else masks.bool()


def gather_tensors(tensors: Sequence[Tensor], device: torch.device | str | None = None) -> list[list[Tensor]] | None:
    """Bring the tensors of every process to the main one as plain bytes.

    All processes hand in the same number of tensors, which may differ between processes in their first dimension alone. The
    lengths go to all; the content goes from each process to the main one as one message of bytes, by the device that the
    backend sends from. If a process dies, the others raise: at once with gloo, after the group's timeout with nccl.

    Args:
        tensors: This process's tensors.
        device: Where the main process puts what it receives; by default it stays on the device of the backend.

    Returns:
        By process the tensors in order; None on the other processes.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return [list(tensors)]
    comm_device = get_comm_device()
    lengths = torch.tensor([len(tensor) for tensor in tensors], dtype=torch.int64, device=comm_device)
    lengths_of = [torch.empty_like(lengths) for _ in range(world_size)]
    torch_dist.all_gather(lengths_of, lengths)
    if rank > 0:
        torch_dist.send(_pack(tensors).to(comm_device), dst=0)
        return None
    gathered = [[tensor if device is None else tensor.to(device) for tensor in tensors]]
    for source in range(1, world_size):
        like = [tensor.new_empty((length, *tensor.shape[1:]), device='meta')
                for tensor, length in zip(tensors, lengths_of[source].tolist(), strict=True)]
        message = torch.empty(sum(map(_num_bytes, like)), dtype=torch.uint8, device=comm_device)
        torch_dist.recv(message, src=source)
        gathered.append(_unpack(message if device is None else message.to(device), like))
    return gathered


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the content of the tensors as bytes, one after the other."""
    return torch.cat([tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors])


def _unpack(message: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Rebuild tensors of the shapes and types of `like`; each is a copy, as an int64 must start at a multiple of 8 bytes."""
    parts = message.split([_num_bytes(tensor) for tensor in like])
    return [part.clone().view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
