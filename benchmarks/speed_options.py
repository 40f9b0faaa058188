"""What the benchmarks of speed share: their options, the line about the machine, and where a section and its plot go."""

import argparse
import math
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from machine import describe_machine
from report_section import check_page, write_section

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
_PACKAGES = ('mmtied', 'onedl-mmengine', 'mmengine', 'onedl-mmcv', 'mmcv', 'onedl-mmdetection', 'mmdet', 'onedl-mmpretrain',
             'mmpretrain')


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark of speed has."""
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeats', type=int, default=5, help='turns of all contenders, of which the median is shown')
    parser.add_argument('--least-ms', type=float, default=20, help='what one measurement takes at least, in milliseconds')
    parser.add_argument('--quick', action='store_true', help='tiny sizes and two turns: shows that everything runs, no more')
    parser.add_argument('--threads', type=int, help="threads of torch on the CPU; its own choice if left out")
    parser.add_argument('--cudnn-benchmark', action='store_true', help='let cuDNN try its algorithms; mmengine does not')
    parser.add_argument('--docs', type=Path, help='Markdown page whose section is written, with its plot under images/')
    parser.add_argument('--label', default='', help="added to the section's name, so that several can stand on the page")
    parser.add_argument('--note', default='', help='a sentence about the run for the section')


def apply_options(args: argparse.Namespace) -> None:
    """Check the options that `add_options` made, and set torch up as they say; --quick lowers the turns.

    Raises:
        ValueError: A device that is not there, or a number that cannot be.
    """
    try:
        device = torch.device(args.device)
        kind = None if device.type == 'cpu' and device.index else device.type
    except RuntimeError:
        kind = None
    if kind not in ('cpu', 'cuda'):
        raise ValueError(f'--device {args.device}: expected cpu, cuda or cuda:N')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device}: torch sees no GPU here; leave it out for the CPU')
    for option in ('repeats', 'threads', 'batch'):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            raise ValueError(f'--{option} {value}: expected 1 or more')
    if not 0 <= args.least_ms < math.inf:
        raise ValueError(f'--least-ms {args.least_ms}: expected 0 or more milliseconds')
    if not re.fullmatch(r'[\w .,-]*', args.label) or '--' in args.label:
        raise ValueError(f'--label {args.label!r}: expected letters, digits, spaces and . , - alone')
    if args.docs:
        check_page(args.docs)
    if args.quick:
        args.repeats, args.least_ms = min(args.repeats, 2), 0
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = args.cudnn_benchmark


def image_size(values: list[int]) -> tuple[int, int]:
    """Height and width from one number or two.

    Raises:
        ValueError: Other than one or two positive numbers.

    Example:
        >>> image_size([224])
        (224, 224)
    """
    if len(values) not in (1, 2) or min(values) < 1:
        raise ValueError(f'--size {" ".join(map(str, values))}: expected a side, or height and width, in pixels')
    return values[0], values[-1]


def conditions(args: argparse.Namespace) -> str:
    """The machine, the versions, and on a GPU how it computes float32."""
    installed = [package for package in _PACKAGES if _is_installed(package)]
    lines = [describe_machine(('torch', *installed), args.device)]
    if torch.device(args.device).type == 'cuda':
        on = {True: 'on', False: 'off'}
        lines.append(f'cuDNN {torch.backends.cudnn.version()}, its benchmark mode {on[torch.backends.cudnn.benchmark]}; TF32 in '
                     f'convolutions {on[torch.backends.cudnn.allow_tf32]}, in matrix products '
                     f'{on[torch.backends.cuda.matmul.allow_tf32]}.')
    return ' '.join([*lines, args.note]).strip()


def section_name(args: argparse.Namespace, subject: str) -> str:
    """Name of a section, for example ``'layers cuda bfloat16'``."""
    dtype = getattr(args, 'dtype', 'float32')
    parts = [subject, torch.device(args.device).type, '' if dtype == 'float32' else dtype, args.label]
    return ' '.join(part for part in parts if part)


def picture_path(args: argparse.Namespace, subject: str) -> Path:
    """Where the plot of a section goes: ``images/`` beside the page."""
    return args.docs.parent / 'images' / f'{section_name(args, subject).replace(" ", "_")}.png'


def report(args: argparse.Namespace, subject: str, title: str, parts: list[str], picture_text: str = '') -> None:
    """Print the parts of a section and, with --docs, write it.

    Args:
        args: The options.
        subject: What was measured, as the section's name has it: ``'layers'``.
        title: The heading.
        parts: Its paragraphs and tables; the line about the machine is added.
        picture_text: What the plot shows, for those who cannot see it; the plot must be at `picture_path`. Empty without one.
    """
    parts = [*parts, conditions(args)]
    print('\n\n'.join(parts))
    if not args.docs:
        return
    picture = [f'![{picture_text}](images/{picture_path(args, subject).name})'] if picture_text else []
    name = section_name(args, subject)
    where = name.removeprefix(subject).strip()
    write_section(args.docs, name, '\n\n'.join([f'## {title}: {where}', *parts[:1], *picture, *parts[1:]]))


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
