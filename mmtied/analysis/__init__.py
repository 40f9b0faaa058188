"""Figures and tables of the papers: sizes of networks, filter similarity, Grad-CAM; and occlusion statistics of data sets."""
