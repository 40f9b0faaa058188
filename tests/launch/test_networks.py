"""Networks for figures: names of their classes, and preprocessed images."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
from mmtied.launch.networks import image_batches, load_networks, prepare  # noqa: E402
from tests.helpers.tiny_networks import CIFAR, CLASSIFIER, DETECTOR, write_network  # noqa: E402

NAMELESS = DETECTOR.replace("metainfo=dict(classes=('cat', 'dog')), ", '')


@pytest.mark.parametrize(('config', 'meta', 'classes'), [
    (NAMELESS, {'dataset_meta': {'classes': ('a', 'b')}, 'CLASSES': ('c', 'd')}, ('a', 'b')),
    (NAMELESS, {'dataset_meta': {'CLASSES': ['a', 'b']}}, ('a', 'b')),
    (DETECTOR, {'CLASSES': ('a', 'b')}, ('a', 'b')),
    (NAMELESS, {'CLASSES': 'person'}, ('person', )),
    (DETECTOR, {}, ('cat', 'dog')),
    (NAMELESS, {}, ()),  # the data set of the base config is COCO, and the network has 2 classes
    (CIFAR, {}, ()),
])
def test_classes(tmp_path, config, meta, classes):
    paths = write_network(tmp_path, config)
    torch.save({**torch.load(paths[1]), 'meta': meta}, paths[1])
    network, = load_networks(paths, device='cpu')
    assert network.classes == classes


@pytest.mark.parametrize(('config', 'kind', 'count', 'first'), [
    (NAMELESS.replace('num_classes=2', 'num_classes=80'), 'CocoDataset', 80, 'person'),
    (CIFAR.replace('num_classes=3', 'num_classes=10'), 'CIFAR10', 10, 'airplane')])
def test_classes_of_the_data_set(tmp_path, config, kind, count, first):
    network, = load_networks(write_network(tmp_path, config), device='cpu')
    assert (len(network.classes), network.classes[0]) == (count, first)


@pytest.mark.parametrize(('config', 'mean', 'std', 'order'), [
    (CIFAR, [120, 110, 100], [50, 60, 70], 'rgb'), (CLASSIFIER, [120, 110, 100], [50, 60, 70], 'rgb'),
    (CLASSIFIER.replace('to_rgb=True', 'to_rgb=False'), [120, 110, 100], [50, 60, 70], 'bgr'),
    (DETECTOR, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 'rgb')])
def test_images_have_the_channels_that_the_model_was_trained_on(tmp_path, config, mean, std, order):
    color = np.array([200, 90, 10])  # red, green, blue
    Image.fromarray(np.full((64, 64, 3), color, np.uint8)).save(tmp_path / 'a.png')
    network, = load_networks(write_network(tmp_path, config), device='cpu')
    expected = ((color if order == 'rgb' else color[::-1]) - np.array(mean)) / std
    prepared = prepare(network, tmp_path / 'a.png')
    for inputs in (prepared.inputs, next(image_batches(network, [tmp_path / 'a.png'], 32))):
        np.testing.assert_allclose(inputs[0, :, 16, 16], expected, rtol=1e-5)
    assert (prepared.pixels == color).all()


def test_wrapped_data_sets():
    from mmtied.launch.networks import Network
    inner = dict(type='CIFAR10', pipeline=[dict(type='PackInputs')])
    for dataset in (inner, dict(type='RepeatDataset', dataset=inner), dict(type='ConcatDataset', datasets=[inner, inner])):
        cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
        assert not Network('a', cfg, torch.nn.Identity(), ()).loads_images
    assert Network('a', Config({}), torch.nn.Identity(), ()).loads_images
