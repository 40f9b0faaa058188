"""The builds of the C++ code, one for each kind of vector registers that PyTorch tells apart; setup.py reads it too."""

import hashlib
from pathlib import Path

#: The compiler's target, by what `torch.backends.cpu.get_cpu_capability` calls a processor.
BUILDS = {'AVX512': ('-march=x86-64-v4', '-mprefer-vector-width=512'), 'AVX2': ('-march=x86-64-v3', )}
#: Sums may be reordered, as vectors need; infinities and NaN stay what they are.
FLAGS = ('-O3', '-std=c++17', '-fopenmp', '-fassociative-math', '-fno-signed-zeros', '-fno-trapping-math')
SOURCES = ('batch_norm.cpp', 'fingerprint.cpp', 'run_lengths.cpp', 'thin_convolution.cpp')
HEADERS = ('lanes.h', 'planes.h')


def fingerprint() -> str | None:
    """What tells whether a library was compiled from the code that lies here; None where none does, as in a wheel."""
    folder = Path(__file__).parent
    files = [folder / name for name in ('builds.py', *SOURCES, *HEADERS)]
    if not all(file.is_file() for file in files):
        return None
    return hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()[:16]
