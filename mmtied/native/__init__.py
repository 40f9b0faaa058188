"""Optional C++ for run-length codes of masks, which makes the evaluation of masks two to three times as fast.

`setup.py` compiles it where there is a compiler. Without it, or with the environment variable ``MMTIED_NATIVE=0``, NumPy and
pycocotools compute the same.
"""

from .loading import library, num_threads

__all__ = ['library', 'num_threads']
