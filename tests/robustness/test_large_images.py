"""Ratios of masks take memory by the instances, not by the image."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation import read_ground_truth
from mmtied.evaluation.inputs.rle import run_lengths, to_rle
from mmtied.evaluation.occlusion import image_ratios

CODE = '''
import resource, sys
from mmtied.evaluation import read_ground_truth
from mmtied.evaluation.occlusion import image_ratios
used = int(open('/proc/self/statm').read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, ) * 2)
side = 60_000
boxes = [[0, 0, 1000, 1000], [500, 0, 1000, 1000], [50_000, 50_000, 1000, 1000]]
corners = [[[x, y, x + w, y, x + w, y + h, x, y + h], [x + 2, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in boxes]
truth = read_ground_truth(dict(images=[dict(id=1, height=side, width=side)], categories=[dict(id=1, name='a')], annotations=[
    dict(id=n, image_id=1, category_id=1, bbox=box, area=10**6, segmentation=polygon)
    for n, (box, polygon) in enumerate(zip(boxes, corners))]))
print(*(image_ratios(truth, definition)[0] for definition in ('mask', 'box_mask', 'covered')))
'''


def test_memory_is_that_of_the_instances():
    """3.6 billion pixels with 300 MB to spare; dense masks take 3.6 GB each."""
    shown = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr[-500:]
    assert np.allclose([float(text) for text in shown.stdout.split()], 1 / 3, atol=1e-3)


def test_too_many_pixels_are_refused():
    data = dict(images=[dict(id=1, height=70_000, width=70_000)], categories=[dict(id=1, name='a')], annotations=[
        dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, segmentation=[[0, 0, 9, 0, 9, 9]])])
    with pytest.raises(ValueError, match='has 70000 x 70000 pixels, but masks may have at most 4294967295'):
        image_ratios(read_ground_truth(data), 'mask')


@settings(max_examples=100)
@given(st.integers(0, 2**16), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_run_lengths_match_pixels(seed, height, width, share):
    mask = np.asfortranarray(np.random.default_rng(seed).random((height, width)) < share, dtype=np.uint8)
    runs = run_lengths(mask_api.encode(mask)['counts'])
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    assert np.array_equal(pixels, mask)


@settings(max_examples=50)
@given(st.integers(0, 2**16))
def test_merged_polygons_of_large_images(seed):
    """Run by run they are as pycocotools merges them."""
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-5, 45, 2 * rng.integers(3, 7)).tolist() for _ in range(rng.integers(1, 5))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmtied.evaluation.inputs.rle._LARGE', 0)
        mine = to_rle(polygons, 40, 40, '')
    assert np.array_equal(mask_api.decode(mine), mask_api.decode(to_rle(polygons, 40, 40, '')))
