"""Puts this folder on the import path, so that the tests in its subfolders find the helpers beside it."""
