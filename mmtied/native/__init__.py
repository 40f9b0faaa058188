"""C++ for what neither PyTorch nor NumPy does fast on a CPU; optional.

`setup.py` compiles it where there is a compiler, once for each of `builds.BUILDS`. Without it, with the environment variable
``MMTIED_NATIVE=0``, and wherever it does not apply, PyTorch, NumPy and pycocotools compute the same.
"""

from .loading import library, num_threads

__all__ = ['library', 'num_threads']
