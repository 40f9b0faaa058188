"""SVHN against torchvision's reader, and ImageNet's augmentation against its definition."""

import numpy as np
import pytest

import mmtied  # noqa: F401
from mmtied.related.interleaved.data import SVHN, HSLJitter, RandomScaleAspect

io = pytest.importorskip('scipy.io')
#: Images of each digit in the files.
EACH = {'train': 401, 'extra': 202, 'test': 2}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Files of SVHN's format; the first two pixels of an image are its file and number."""
    folder = tmp_path_factory.mktemp('svhn')
    rng = np.random.default_rng(0)
    for number, (name, each) in enumerate(EACH.items()):
        images = np.zeros((32, 32, 3, 10 * each), np.uint8)
        images[0, 0, 0], images[0, 1] = number, np.arange(10 * each) % 251
        images[1, 2, 0], images[2, 1, 1] = 7, 9
        io.savemat(folder / f'{name}_32x32.mat', {'X': images, 'y': rng.permutation(np.repeat(np.arange(1, 11), each))[:, None]})
    return folder


@pytest.mark.parametrize('name', EACH)
def test_reads_as_torchvision_does(name, root, monkeypatch):
    torchvision = pytest.importorskip('torchvision')
    monkeypatch.setattr(torchvision.datasets.SVHN, '_check_integrity', lambda self: True)
    theirs = torchvision.datasets.SVHN(root, split=name)
    images, digits = SVHN(data_root=root, split='test')._read(name)
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), theirs.data)
    np.testing.assert_array_equal(digits, theirs.labels)


def test_splits(root):
    """Section 5.1: 400 training and 200 extra images of each digit are held out, the rest is for training."""
    data = {split: SVHN(data_root=root, split=split) for split in ('train', 'all', 'val', 'test')}
    assert {split: len(part) for split, part in data.items()} == {'train': 30, 'all': 6030, 'val': 6000, 'test': 20}
    for part in data.values():
        part.full_init()
    held = {split: [image.tobytes() for image in data[split]._images] for split in ('train', 'val', 'all')}
    assert sorted(held['train'] + held['val']) == sorted(held['all'])
    for file, each in ((0, 400), (1, 200)):
        positions = np.flatnonzero(data['val']._images[:, 0, 0, 0] == file)
        assert np.bincount([data['val'].get_data_info(index)['gt_label'] for index in positions]).tolist() == [each] * 10
    for seed, same in ((0, True), (1, False)):
        other = SVHN(data_root=root, split='train', seed=seed)
        other.full_init()
        assert (sorted(image.tobytes() for image in other._images) == sorted(held['train'])) == same


def test_subset_keeps_images_and_labels_together(root):
    whole, part = SVHN(data_root=root, split='test'), SVHN(data_root=root, split='test', indices=[3, 7])
    for index, position in enumerate((3, 7)):
        assert part[index]['gt_label'] == whole[position]['gt_label']
        np.testing.assert_array_equal(part[index]['img'], whole[position]['img'])


def test_user_errors(root, tmp_path):
    with pytest.raises(ValueError, match=r"SVHN: split='extra', expected one of train, all, val, test"):
        SVHN(data_root=root, split='extra')
    with pytest.raises(ValueError, match=r'SVHN: .*train_32x32.mat not found; download it from http'):
        SVHN(data_root=tmp_path)
    (tmp_path / 'test_32x32.mat').write_bytes(b'<html>')
    with pytest.raises(ValueError, match=r'test_32x32.mat is not a file of cropped digits with X and y'):
        SVHN(data_root=tmp_path, split='test')
    few = {'X': np.zeros((32, 32, 3, 4), np.uint8), 'y': np.ones((4, 1))}
    io.savemat(tmp_path / 'train_32x32.mat', few)
    io.savemat(tmp_path / 'extra_32x32.mat', few)
    with pytest.raises(ValueError, match=r'train_32x32.mat has 0 images of the digit 0, expected at least 400'):
        SVHN(data_root=tmp_path, split='val')


@pytest.mark.parametrize('shape', [(300, 500), (640, 480), (100, 100)])
def test_random_scale_and_aspect(shape):
    np.random.seed(0)
    ratios, shorter = [], []
    for _ in range(200):
        results = RandomScaleAspect((256, 480), 0.25).transform({'img': np.zeros((*shape, 3), np.uint8)})
        height, width = results['img'].shape[:2]
        assert results['img_shape'] == (height, width)
        assert min(height, width) >= 256
        ratios.append(width / height / (shape[1] / shape[0]))
        shorter.append(min(height, width))
    assert max(ratios) < 1.26 and min(ratios) > 0.74  # the limit of 256 pixels only moves it towards 1
    assert max(ratios) > 1.15 and min(ratios) < 0.85 and max(shorter) > 420
    plain = RandomScaleAspect((300, 300), 0).transform({'img': np.zeros((*shape, 3), np.uint8)})
    assert min(plain['img'].shape[:2]) == 300
    assert plain['img'].shape[1] / plain['img'].shape[0] == pytest.approx(shape[1] / shape[0], abs=0.01)


def test_color_jitter_moves_hue_saturation_and_lightness():
    """By colorsys: lightness moves by up to 50 / 255, and hue by up to 36 / 180, for a color far from the limits."""
    import colorsys
    np.random.seed(0)
    image = np.full((4, 4, 3), (60, 200, 120), np.uint8)  # BGR
    before = np.array(colorsys.rgb_to_hls(120 / 255, 200 / 255, 60 / 255))
    moves = []
    for _ in range(100):
        blue, green, red = HSLJitter().transform({'img': image.copy()})['img'][0, 0] / 255
        moves.append(np.array(colorsys.rgb_to_hls(red, green, blue)) - before)
    hue, lightness, _ = np.abs(moves).max(0)
    assert 0.15 < hue < 36 / 180 + 0.03
    assert 0.17 < lightness < 50 / 255 + 0.01
    same = HSLJitter(0, 0, 0).transform({'img': image.copy()})['img']
    assert np.abs(same.astype(int) - image).max() <= 2


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: RandomScaleAspect((480, 256)), r'RandomScaleAspect: scale=\(480, 256\), expected'),
    (lambda: RandomScaleAspect(aspect=1), r'RandomScaleAspect: aspect=1, expected a number in \[0, 1\)'),
    (lambda: HSLJitter(hue=-1), r'HSLJitter: hue=-1, saturation=50, lightness=50, expected numbers >= 0')])
def test_errors_of_transforms(make, message):
    with pytest.raises(ValueError, match=message):
        make()
