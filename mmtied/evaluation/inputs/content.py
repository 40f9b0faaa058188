"""Read the bytes of files, check that they fit into memory, and recognize kinds of files by content."""

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mmtied.atomic import check_can_read

from .faults import one_line

try:
    import resource
except ImportError:  # Windows
    resource = None

#: Fewer bytes than this are not checked.
_UNCHECKED = 1 << 26
#: Python's bytes for an object, list or value in JSON, by the character that starts or ends it.
_BYTES_OF = {b'{': 220, b'[': 70, b',': 30}
#: Number of slices of a text that are sampled, and their bytes.
_SLICES, _SLICE = 8, 1 << 15
#: A compressed file may unpack to the larger of these bytes and this multiple of its size.
_SMALL, _MOST_PACKED = 1 << 28, 100

#: Suffixes of images, in lower case.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm')
#: First bytes of gzip files.
PACKED = b'\x1f\x8b'
#: First bytes of files in unsupported formats, and descriptions.
_MAGIC = {
    b'PK\x03\x04': 'a torch checkpoint or another zip file',
    b'\x80\x02': 'a pickle, such as an old torch checkpoint or a dump',
    b'\x80\x03': 'a pickle', b'\x80\x04': 'a pickle', b'\x80\x05': 'a pickle',
    b'\x93NUMPY': 'a NumPy array',
    b'\x89PNG': 'a PNG image', b'\xff\xd8\xff': 'a JPEG image',
    b'\x89HDF': 'an HDF5 file', b'PAR1': 'a Parquet file', b'%PDF': 'a PDF', b'7z\xbc\xaf': 'a 7-zip file',
    b'SQLite': 'an SQLite database', b'BZh': 'a file compressed by bzip2', b'\xfd7zXZ': 'a file compressed by xz',
    b'version https://git-lfs': 'a pointer of Git LFS (run git lfs pull)',
}

#: Elements of unsupported XML files, with descriptions and advice.
_XML = {
    b'<track ': "CVAT's XML of a video, with tracks; export it as 'CVAT for images 1.1' or 'COCO 1.0'",
    b'<bndbox>': 'the XML file of one image of Pascal VOC; give the folder of all',
}


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a file, gunzipped if needed; UTF-16 text, as PowerShell writes it, becomes UTF-8."""
    path = Path(path)
    check_can_read(path)
    check_memory(path.stat().st_size, path)
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeError):
            return content.decode('utf-16').encode()
    if not content.startswith(PACKED):
        return content
    limit = max(_SMALL, _MOST_PACKED * len(content))
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f'{path}: cannot be unpacked by gzip ({error}); the file may be incomplete') from None
    if len(unpacked) > limit:
        raise ValueError(f'{path}: refused, as its {len(content)} bytes unpack to more than {limit}; unpack it first')
    return unpacked


def files_with_suffix(folder: Path, suffix: str, below: bool = False) -> list[Path]:
    """Return the sorted files in a folder, or also `below` it, with a suffix in any case; skips hidden files."""
    return sorted(file for file in (folder.rglob('*') if below else folder.glob('*'))
                  if file.suffix.lower() == suffix and not file.name.startswith('.'))


def first_line(files: Sequence[Path]) -> str:
    """Return the first non-blank first line among the first 50 text files, or ''."""
    lines = (file.read_text(encoding='utf-8-sig', errors='replace').split('\n', 1)[0] for file in files[:50])
    return next(filter(str.strip, lines), '')


def numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the location, for messages, and the text of each non-blank line of a text file."""
    for number, line in enumerate(file.read_text(encoding='utf-8-sig').splitlines(), 1):
        if line.strip():
            yield f'{file}: line {number}', line


def other_kind(content: bytes) -> str | None:
    """Describe the format of a file that is not a single JSON value; None if it is unknown."""
    for first_bytes, kind in _MAGIC.items():
        if content.startswith(first_bytes):
            return kind
    start = content[:4096].removeprefix(b'\xef\xbb\xbf').lstrip()
    if start.startswith(b'<?xml') or (start.startswith(b'<') and b'>' in start):
        return next((kind for part, kind in _XML.items() if part in content), 'XML')
    if is_json_lines(content):
        return 'JSON lines'
    if b'ImageID,' in start[:200]:
        return 'a CSV table of Open Images'
    return None if start.startswith((b'[', b'{')) else _text_kind(start.decode('utf-8', 'replace').splitlines())


def _text_kind(lines: list[str]) -> str | None:
    """Describe a text file other than JSON by its first lines; None for an empty one."""
    first = lines[0] if lines else ''
    words, cells = first.split(), first.rstrip(',').split(',')
    numbers = [as_numbers([word]) is not None for word in words]
    keys = {line.partition(':')[0] for line in lines if ':' in line}
    if 'names' in keys and keys & {'train', 'val', 'path', 'nc'}:
        return 'a data.yaml of ultralytics; give the folder that has labels and images'
    if len(words) in (15, 16) and numbers == [False] + [True] * (len(words) - 1):
        return "a text file of KITTI; convert its folder to COCO's layout"
    if first.startswith('imagesource:') or (numbers[:8] == [True] * 8 and numbers[8:] in ([False], [False, True])):
        return "a text file of DOTA, whose boxes are rotated; convert its folder to COCO's layout, with upright boxes"
    if len(cells) == 8 and as_numbers(cells):
        return 'the text file of one image of VisDrone; give the folder of all'
    if len(words) >= 5 and words[0].isdecimal() and all(numbers):
        return 'the text file of one image of YOLO; give the folder of all'
    if lines and all(line.strip().lower().endswith(IMAGE_SUFFIXES) for line in lines[:2]):
        return 'a list of images; give the folder that has labels and images'
    if any(first.count(comma) >= 3 and all(line.count(comma) == first.count(comma) for line in lines[1:3]) for comma in ',;\t'):
        return (f"a CSV table that begins with {one_line(first, 80)}; only Open Images' tables are supported, with ImageID, "
                "LabelName, XMin, XMax, YMin and YMax; convert it to COCO's layout")
    return (f'text that begins with {one_line(first, 60)}' if first.isprintable() else 'binary data') if first else None


def as_numbers(words: Sequence[str]) -> list[float] | None:
    """Convert texts to numbers; return None if one is not a number."""
    try:
        return list(map(float, words))
    except ValueError:
        return None


def is_json_lines(content: bytes) -> bool:
    """Return whether the first two non-blank lines are a complete JSON object each."""
    if not content[:64].removeprefix(b'\xef\xbb\xbf').lstrip().startswith(b'{'):
        return False  # without a copy of a large file
    start, lines = content.find(b'{'), []
    while len(lines) < 2 and start < len(content):
        end = content.find(b'\n', start)
        end = len(content) if end < 0 else end
        line = content[start:end].strip()
        lines += [line] if line else []
        start = end + 1
    return len(lines) == 2 and all(line.startswith(b'{') and line.endswith(b'}') for line in lines)


def check_memory(needed: int, path: str | os.PathLike) -> None:
    """Raise a ValueError if reading a file needs more memory than is free, rather than let the system kill the process."""
    free = free_memory() if needed > _UNCHECKED else None
    if free is not None and needed > free:
        raise ValueError(f'{path}: needs about {needed / 1e9:.1f} GB of memory to be read, and {free / 1e9:.1f} GB are free; '
                         'evaluate parts of the images, or use a machine with more memory')


def json_memory(content: bytes) -> int:
    """Estimate the memory in bytes of a JSON text's values in Python, from slices of the text.

    Example:
        >>> json_memory(b'[' + b'{"score": 0.5},' * 99 + b'{"score": 0.5}]') // 100
        257
    """
    step = max(len(content) // _SLICES, _SLICE)
    parts = [content[start:start + _SLICE] for start in range(0, len(content), step)]
    counted = sum(part.count(character) * size for part in parts for character, size in _BYTES_OF.items())
    return int(counted * len(content) / max(sum(map(len, parts)), 1)) + len(content) // 2


def free_memory() -> int | None:
    """Return the bytes this process may still use, by the machine, its container and ``ulimit -v``; None if unknown."""
    found = []
    machine = _fields('/proc/meminfo')
    if 'MemAvailable:' in machine:
        found.append((machine['MemAvailable:'] + machine.get('SwapFree:', 0)) << 10)
    most, used = (_text(f'/sys/fs/cgroup/memory.{name}').strip() for name in ('max', 'current'))
    if most.isdecimal() and used.isdecimal():
        found.append(int(most) - int(used) + _fields('/sys/fs/cgroup/memory.stat').get('inactive_file', 0))
    limit, pages = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1, _text('/proc/self/statm').split()
    if resource and limit != resource.RLIM_INFINITY and pages:
        found.append(limit - int(pages[0]) * os.sysconf('SC_PAGE_SIZE'))
    return min(found, default=None)


def _fields(path: str) -> dict[str, int]:
    """Return the numbers in a system file by the names before them."""
    return {words[0]: int(words[1]) for words in map(str.split, _text(path).splitlines()) if len(words) > 1}


def _text(path: str) -> str:
    """Return the content of a system file, '' if it does not exist."""
    try:
        return Path(path).read_text(encoding='ascii', errors='replace')
    except OSError:
        return ''
