"""Image files: turned as cameras say, found by names of every kind."""

import numpy as np
import pytest

pytest.importorskip('PIL')
from PIL import Image

from mmtied.evaluation.inputs.images import image_file, read_image


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied_as_mmcv_does(tmp_path, orientation):
    mmcv = pytest.importorskip('mmcv')
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / 'phone.jpg', exif=exif, quality=100, subsampling=0)
    ours, theirs = np.asarray(read_image(tmp_path / 'phone.jpg')), mmcv.imread(tmp_path / 'phone.jpg', channel_order='rgb')
    assert ours.shape == theirs.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert np.abs(ours.astype(int) - theirs).mean() < 2


def test_names_with_folders_backslashes_and_absolute_paths(tmp_path):
    (tmp_path / 'val' / 'a').mkdir(parents=True)
    for name in ('x.jpg', 'a/y.jpg'):
        (tmp_path / 'val' / name).touch()
    folder = tmp_path / 'val'
    assert image_file(folder, 'x.jpg') == folder / 'x.jpg'
    assert image_file(folder, 'a\\y.jpg') == folder / 'a/y.jpg'
    assert image_file(folder, '/home/someone/data/val/x.jpg') == folder / 'x.jpg'
    assert image_file(folder, '/home/someone/data/val/a/y.jpg') == folder / 'a/y.jpg'
    assert image_file(tmp_path, str(folder / 'x.jpg')) == folder / 'x.jpg'
    assert image_file(folder, 'C:\\data\\none.jpg') == folder / 'data/none.jpg'  # missing: said by whoever needs it
