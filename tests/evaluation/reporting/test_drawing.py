"""Draw single images, and select the detections to show on them."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.images import dataset_image_paths, image_paths, read_image
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.reporting.pictures import (
    LONGEST_SIDE,
    LOOKS,
    Shapes,
    draw_example,
    jpeg_uri,
    shown_of,
)
from mmtied.evaluation.stream import shown_detections, shown_table


def rgb(color):
    return tuple(int(color[start:start + 2], 16) for start in (1, 3, 5))


def rle(size, x, y, w, h):
    mask = np.zeros(size, np.uint8)
    mask[y:y + h, x:x + w] = 1
    return mask_api.encode(np.asfortranarray(mask))


FOUND, MISSED, UNMATCHED = (LOOKS[name] for name in ('found', 'missed', 'unmatched'))


@pytest.mark.parametrize('pixels', [(240, 160), (1200, 800)])  # files are scaled to the size in the annotations
def test_draws_boxes_at_their_coordinates(pixels):
    truth = Shapes(np.array([[24., 16., 96., 64.]]), ['cat'])
    predictions = Shapes(np.array([[120., 80., 60., 40.]]), ['dog 0.90'])
    picture = np.asarray(draw_example(Image.new('RGB', pixels, 'gray'), (160, 240), [(truth, FOUND), (predictions, UNMATCHED)]))
    assert picture.shape == (320, LONGEST_SIDE, 3)
    assert tuple(picture[32, 140]) == tuple(picture[100, 48]) == rgb(FOUND.color)
    assert tuple(picture[239, 300]) == tuple(picture[200, 360]) == rgb(UNMATCHED.color)
    assert tuple(picture[100, 140]) == tuple(picture[300, 20]) == (128, 128, 128)


def test_missed_boxes_are_dashed():
    missed = Shapes(np.array([[24., 16., 96., 64.]]), ['cat'])
    picture = np.asarray(draw_example(Image.new('RGB', (240, 160), 'gray'), (160, 240), [(missed, MISSED)]))
    top = {tuple(pixel) for pixel in picture[32, 48:240].tolist()}
    assert top == {rgb(MISSED.color), rgb('#101010')}


def test_masks_tint_only_their_pixels():
    truth = Shapes(np.zeros((0, 4)), [], [rle((160, 240), 24, 16, 96, 64)])
    picture = np.asarray(draw_example(Image.new('RGB', (240, 160), 'gray'), (160, 240), [(truth, FOUND)]))
    assert tuple(picture[300, 400]) == (128, 128, 128)
    blend = 128 + (np.array(rgb(FOUND.color)) - 128) * 90 / 255
    np.testing.assert_allclose(picture[100, 140], blend, atol=1)


def test_label_placement_and_degenerate_boxes():
    image = Image.new('RGB', (240, 160), 'gray')
    same = Shapes(np.tile([60., 60., 90., 50.], (5, 1)), ['first', *['second'] * 4])
    once = Shapes(same.boxes_xywh, ['first', '', '', '', ''])
    first, second = (draw_example(image, (160, 240), [(shapes, FOUND)]) for shapes in (same, once))
    assert np.array_equal(first, second)
    odd = Shapes(np.array([[-50., -50., 20., 20.], [239., 159., 40., 40.], [10., 10., 0., 0.]]), ['', 'a\nb', 'x' * 500])
    picture = draw_example(image, (160, 240), [(odd, MISSED), (odd, FOUND)])
    assert picture.size == (LONGEST_SIDE, 320)
    assert jpeg_uri(picture).startswith('data:image/jpeg;base64,')
    draw_example(Image.new('L', (500, 1)), (1, 500), [(odd, MISSED), (odd, FOUND)])


def test_keeps_best_detections_per_image():
    rng = torch.Generator().manual_seed(0)
    boxes = 90 * torch.rand(3, 50, 4, generator=rng, dtype=torch.float64)
    boxes[..., 2:] += boxes[..., :2]
    scores, labels = torch.rand(3, 50, generator=rng), torch.randint(80, (3, 50), generator=rng)
    images = (7, 2**20, 3)
    table = shown_table(torch.tensor(images).repeat_interleave(50), labels.flatten(), scores.flatten(), boxes.flatten(0, 1))
    for number, image in enumerate(images):
        order = np.argsort(-scores[number].double().numpy(), kind='stable')
        best = [place for place in order if scores[number][place] >= .3][:30]
        shown = shown_of(shown_detections(table), image)
        np.testing.assert_array_equal(shown.score, scores[number].double().numpy()[best])
        np.testing.assert_array_equal(shown.category, labels[number].numpy()[best])
        np.testing.assert_allclose(shown.boxes_xywh[:, 2:], (boxes[number, :, 2:] - boxes[number, :, :2]).numpy()[best])
    assert len(table) == sum(len(shown_of(shown_detections(table), image).score) for image in images)
    assert len(shown_of(shown_detections(table), 0).score) == 0


DATA = dict(images=[dict(id=1, height=10, width=10, file_name='b.png'), dict(id=0, height=10, width=10, file_name='a.png')],
            categories=[dict(id=4, name='a')], annotations=[])


def test_detections_to_show():
    results = [dict(image_id=1, category_id=4, score=score, segmentation=dict(size=[10, 10], counts=[0, 4, 6, 4, 86]))
               for score in (.2, .5, .9)]
    shown = shown_of(make_detections(results, read_ground_truth(DATA), 'segm'), 1)
    assert shown.score.tolist() == [.9, .5]
    assert shown.boxes_xywh.tolist() == [[0, 0, 2, 4]] * 2
    assert len(shown.rles) == 2


def test_missing_and_broken_images(tmp_path):
    ground_truth = read_ground_truth(DATA)
    with pytest.raises(ValueError, match='no such folder'):
        image_paths(ground_truth, tmp_path / 'nowhere')
    (tmp_path / 'a.png').write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r'lacks 1 of the 2 images .* such as b\.png'):
        image_paths(ground_truth, tmp_path)
    (tmp_path / 'b.png').write_bytes(b'')
    paths = image_paths(ground_truth, tmp_path)
    assert [path.name for path in paths] == ['a.png', 'b.png']  # in the order of the sorted ids
    for path in paths:
        with pytest.raises(ValueError, match='cannot be read as an image'):
            read_image(path)
    unnamed = {**DATA, 'images': [dict(id=3, height=10, width=10)]}
    with pytest.raises(ValueError, match="image id 3 has no 'file_name'"):
        image_paths(read_ground_truth(unnamed), tmp_path)


def test_image_paths_of_wrapped_dataset():
    class Images:
        infos = [dict(img_id=7, img_path='seven.jpg'), dict(img_id=3, img_path='three.jpg')]

        def __len__(self):
            return len(self.infos)

        def get_data_info(self, number):
            return self.infos[number]

    class Wrapped:
        dataset = Images()

    assert dataset_image_paths(Wrapped(), np.array([3, 5, 7])) == ['three.jpg', None, 'seven.jpg']
    with pytest.raises(ValueError, match='has no path for one of the images'):
        read_image(None)


@pytest.mark.parametrize(('name', 'found'), [('a/one.jpg', True), ('../one.jpg', False), ('a/../../one.jpg', False),
                                             ('/etc/one.jpg', False), ('..a/one.jpg', True)])
def test_dataset_images_stay_in_their_folder(name, found):
    class Images:
        data_prefix = dict(img='data/train/')

        def __len__(self):
            return 1

        def get_data_info(self, number):
            return dict(img_id=1, img_path=os.path.join(self.data_prefix['img'], name))  # noqa: PTH118, as mmdet joins them

    assert dataset_image_paths(Images(), np.array([1])) == [f'data/train/{name}' if found else None]
