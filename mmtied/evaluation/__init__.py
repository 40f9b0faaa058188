"""Evaluation by occlusion: COCO's AP for buckets of images, by how much their instances cover each other.

The arithmetic needs torch, NumPy and pycocotools only; `metric` and `hook` plug it into mmengine.
"""

