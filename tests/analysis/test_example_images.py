"""Example images: choice, tints, and atomic writing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from mmtied.analysis.example_images import (
    OVERLAP_COLOR,
    Choice,
    category_colors,
    draw_overlaps,
    overlap_depth,
    write_examples,
)
from mmtied.evaluation.buckets import bucket_between
from mmtied.evaluation.inputs.ground_truth import read_ground_truth

boxes_of = st.lists(st.tuples(st.integers(-3, 14), st.integers(-3, 11), st.integers(0, 9), st.integers(0, 9)), max_size=6)


@settings(max_examples=80, deadline=None)
@given(boxes_of, st.booleans(), st.integers(0, 99))
def test_depth_map_counts_boxes(boxes, same_category, seed):
    categories = np.random.default_rng(seed).integers(0, 2, len(boxes))
    counts = np.zeros((2, 12, 15), dtype=int)
    for (x, y, w, h), category in zip(boxes, categories if same_category else np.zeros(len(boxes), dtype=int), strict=True):
        counts[category, max(0, y):max(0, y + h), max(0, x):max(0, x + w)] += 1
    depth = overlap_depth(np.array(boxes, dtype=float), (12, 15), categories if same_category else None)
    np.testing.assert_array_equal(depth, counts.max(axis=0))


def test_tint_grows_with_depth():
    image = Image.new('RGB', (60, 40), (100, 100, 100))
    boxes = np.array([[0, 0, 60, 40], [0, 0, 40, 40], [0, 0, 20, 40]], dtype=float)
    pixels = np.asarray(draw_overlaps(image, boxes, category_colors(3), (40, 60), 80)).astype(int)
    assert pixels.shape == (80, 120, 3)
    distance = [np.abs(pixels[40, x] - OVERLAP_COLOR).sum() for x in (20, 60, 100)]
    assert distance[0] < distance[1] < distance[2]
    assert pixels[40, 100].tolist() == [100, 100, 100]  # one box only: no tint


@pytest.mark.parametrize(('count', 'least'), [(5, 70), (10, 40), (80, 15)])
def test_category_colors_tell_apart(count, least):
    colors = [*category_colors(count), OVERLAP_COLOR, (128, 128, 128)]
    picture = Image.new('RGB', (len(colors), 1))
    picture.putdata(colors)
    profiles = (ImageCms.createProfile(name) for name in ('sRGB', 'LAB'))
    lab = np.asarray(ImageCms.applyTransform(picture, ImageCms.buildTransform(*profiles, 'RGB', 'LAB')))[0]
    lab = np.column_stack([lab[:, 0] * (100 / 255), lab[:, 1:].astype(np.int8)])  # littleCMS as an independent oracle
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distance[~np.eye(len(colors), dtype=bool)].min() > (least if count > 10 else min(least, 30))
    assert distance[:count, :count][~np.eye(count, dtype=bool)].min() > least
    assert category_colors(1203)[:count] == category_colors(count)  # a category's color does not depend on their number


@pytest.mark.parametrize(('ends', 'holds'), [((0, 0), [1, 0, 0, 0, 0]), ((0, .5), [0, 1, 0, 0, 0]), ((.5, .9), [0, 0, 1, 0, 0]),
                                             ((.9, 1), [0, 0, 0, 1, 1]), ((.9, 1.5), [0, 0, 0, 1, 1])])
def test_bucket_selection(ends, holds):
    assert bucket_between(*ends).holds(np.array([0, .2, .5, .9, 1])).tolist() == [bool(value) for value in holds]


@pytest.fixture
def data(tmp_path):
    """Make images whose two 10 x 10 boxes overlap by i columns in image i: r = i / 10."""
    (tmp_path / 'images').mkdir()
    images, annotations = [], []
    for number in range(1, 11):
        images.append(dict(id=number, height=30, width=40, file_name=f'{number}.png'))
        Image.new('RGB', (40, 30), (9 * number, 80, 90)).save(tmp_path / f'images/{number}.png')
        for x in (0, 10 - number):
            annotations.append(dict(id=len(annotations) + 1, image_id=number, category_id=1, bbox=[x, 5, 10, 10], area=100.))
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='thing')])


def test_draws_images_of_bucket(tmp_path, data):
    written = write_examples(read_ground_truth(data), tmp_path / 'images', tmp_path / 'out', Choice(bucket_between(.5, .8)))
    assert [path.name for path in written] == ['sheet.jpg', 'r0.50_5.jpg', 'r0.60_6.jpg', 'r0.70_7.jpg']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(path.name for path in written)
    with Image.open(written[1]) as picture:
        assert picture.width == 640 and picture.height > 480  # the caption is below the drawing


def test_seed_selects_images(tmp_path, data):
    ground_truth = read_ground_truth(data)
    chosen = []
    for run, seed in enumerate((0, 0, 1, 2)):
        written = write_examples(ground_truth, tmp_path / 'images', tmp_path / f'out{run}',
                                 Choice(bucket_between(.1, 1), 3, seed=seed))
        chosen.append([path.name for path in written])
    assert chosen[0] == chosen[1]
    assert len({tuple(names) for names in chosen}) > 1


def test_missing_images(tmp_path, data):
    ground_truth = read_ground_truth(data)
    for number in (5, 7):
        (tmp_path / f'images/{number}.png').unlink()
    where, choice = (ground_truth, tmp_path / 'images', tmp_path / 'out'), Choice(bucket_between(.5, .8))
    with pytest.raises(ValueError, match=r'lacks 2 of the 3 chosen images: (5\.png, 7|7\.png, 5)\.png; '):
        write_examples(*where, choice)
    assert not (tmp_path / 'out').exists()
    assert [path.name for path in write_examples(*where, choice._replace(skip_missing=True))] == ['sheet.jpg', 'r0.60_6.jpg']


def test_broken_image_leaves_no_files(tmp_path, data):
    (tmp_path / 'images/6.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'6\.png: cannot be read as an image'):
        write_examples(read_ground_truth(data), tmp_path / 'images', tmp_path / 'out', Choice(bucket_between(.5, .8)))
    assert [path.name for path in tmp_path.iterdir()] == ['images']
