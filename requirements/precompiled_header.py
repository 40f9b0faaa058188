"""Compile with GCC, and first precompile mmcv's header of torch's headers: ``precompiled_header.py g++ ARGUMENTS``.

GCC uses ``HEADER.gch`` in place of ``HEADER`` where both lie in one folder and were compiled with the same options, so the first
compilation that runs makes it with its own options. Where the options differ later GCC falls back to the header itself.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HEADER = 'pytorch_cpp_helper.hpp'


def main(command: list[str]) -> None:
    """Precompile the header if `command` compiles a source file and nobody has yet, then run `command`."""
    header = find_header(command) if '-c' in command else None
    if header is not None:
        with Path(f'{header}.lock').open('w', encoding='utf-8') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            target = precompile(header, command)
        if target.is_file():
            command = [*command, '-include', str(header)]  # GCC uses it only before any other header
    os.execvp(command[0], command)


def find_header(command: list[str]) -> Path | None:
    """Return the path of `HEADER` in the include folders of `command`, or None."""
    folders = [argument[2:] for argument in command if argument.startswith('-I')]
    return next((Path(folder, HEADER) for folder in folders if Path(folder, HEADER).is_file()), None)


def precompile(header: Path, command: list[str]) -> Path:
    """Precompile `header` with the options of `command`, unless that was done or tried before; return the file or folder."""
    target = header.with_name(f'{header.name}.gch')
    if target.exists():
        return target
    partial = target.with_suffix('.partial')
    run = subprocess.run([*header_options(command), '-x', 'c++-header', str(header), '-o', str(partial)],
                         capture_output=True, text=True)
    if run.returncode:
        print(f'{header.name} is not precompiled:\n{run.stderr}', file=sys.stderr)
        target.mkdir()  # GCC looks for precompiled headers in a folder of this name too, and finds none
    else:
        partial.rename(target)
    return target


def header_options(command: list[str]) -> list[str]:
    """Return `command` without its source file, output and dependency file."""
    kept, skip = [], False
    for argument in command:
        if skip:
            skip = False
        elif argument in ('-o', '-MF', '-MT', '-MQ'):
            skip = True
        elif argument not in ('-c', '-MMD', '-MD', '-MP') and not argument.endswith(('.cpp', '.cc', '.cxx')):
            kept.append(argument)
    return kept


if __name__ == '__main__':
    main(sys.argv[1:])
