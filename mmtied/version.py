"""Version of mmtied, in a file of its own that setup.py reads without importing the package."""

__version__ = '0.1.0'
