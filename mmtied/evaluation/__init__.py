"""Evaluation by occlusion: COCO's AP for buckets of images, by how much their instances cover each other.

The maths needs torch, NumPy and pycocotools only. `metric` and `hook`, which plug it into mmengine, are imported here where
mmengine is installed.
"""

from ..compat import is_installed

if is_installed('mmengine'):
    from . import hook, metric  # noqa: F401
