"""Refuse files that memory cannot hold, with the size that they need, before the machine ends the process."""

import os
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows
    resource = None

#: Needs below this many bytes are not checked.
_SMALL = 1 << 26
#: Bytes that Python takes for what these characters of a JSON text begin or end: an object, a list, a value.
_BYTES_OF = {b'{': 220, b'[': 70, b',': 30}
#: Slices of a text that are counted, and the bytes of each.
_SLICES, _SLICE = 8, 1 << 15


def check_fits(needed: int, path: str | os.PathLike) -> None:
    """Raise a ValueError where a file needs more memory than is free.

    Args:
        needed: Bytes that reading it takes.
        path: The file.
    """
    free = free_memory() if needed > _SMALL else None
    if free is not None and needed > free:
        raise ValueError(f'{path}: needs about {needed / 1e9:.1f} GB of memory to be read, and {free / 1e9:.1f} GB are free; '
                         'evaluate parts of the images, or use a machine with more memory')


def json_memory(content: bytes) -> int:
    """Estimate the bytes that the values of a JSON text take in Python, from slices of it.

    Example:
        >>> json_memory(b'[' + b'{"score": 0.5},' * 99 + b'{"score": 0.5}]') // 100
        257
    """
    step = max(len(content) // _SLICES, _SLICE)
    parts = [content[start:start + _SLICE] for start in range(0, len(content), step)]
    counted = sum(parts[number].count(character) * size for number in range(len(parts)) for character, size in _BYTES_OF.items())
    return int(counted * len(content) / max(sum(map(len, parts)), 1)) + len(content) // 2


def free_memory() -> int | None:
    """Return the bytes that this process may still take: of the machine, its container and ``ulimit -v``; None if not known."""
    return min((found for found in (_of_machine(), _of_container(), _of_limit()) if found is not None), default=None)


def _of_machine() -> int | None:
    lines = _text('/proc/meminfo').splitlines()
    sizes = {line.partition(':')[0]: int(line.split()[1]) << 10 for line in lines if len(line.split()) > 1}
    return sizes['MemAvailable'] + sizes.get('SwapFree', 0) if 'MemAvailable' in sizes else None


def _of_container() -> int | None:
    most, used = (_text(f'/sys/fs/cgroup/memory.{name}').strip() for name in ('max', 'current'))
    stat = dict(line.split()[:2] for line in _text('/sys/fs/cgroup/memory.stat').splitlines())
    return int(most) - int(used) + int(stat.get('inactive_file', 0)) if most.isdecimal() and used.isdecimal() else None


def _of_limit() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    used = _text('/proc/self/statm').split()
    return limit - int(used[0]) * os.sysconf('SC_PAGE_SIZE') if resource and limit != resource.RLIM_INFINITY and used else None


def _text(path: str) -> str:
    """Return the content of a file of the system; empty where there is none."""
    try:
        return Path(path).read_text(encoding='ascii', errors='replace')
    except OSError:
        return ''
