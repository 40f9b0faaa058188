"""Sizes of networks: counted here, and beside them what the paper prints."""
