"""What a benchmark ran on: the devices, how many threads, how busy the machine was, and the versions."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe_machine(packages: Sequence[str], device: str = 'cpu') -> str:
    """One paragraph with the processor, the GPU where one is used, the load and the packages' versions."""
    cpu = platform.processor() or platform.machine()
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), cpu)
    parts = [f'{len(os.sched_getaffinity(0))} cores of {cpu}', f'{torch.get_num_threads()} threads']
    if device != 'cpu':
        parts.append(torch.cuda.get_device_name(device))
    parts += [f'load average {os.getloadavg()[0]:.1f} when it ended', f'Python {platform.python_version()}']
    return ', '.join(parts + [f'{package} {_version(package)}' for package in packages]) + '.'


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'missing'
