"""Sizes of networks beside the printed ones, and occlusion statistics of data sets."""
