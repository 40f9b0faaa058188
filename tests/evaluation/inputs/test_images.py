"""Image files: EXIF orientation, and lookup by names of every kind."""

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
    assert image_file(folder, 'C:\\data\\none.jpg') == folder / 'data/none.jpg'  # missing: reported by the caller


@pytest.mark.parametrize('name', ['../secret.png', 'a/../../secret.png', 'a\\..\\..\\secret.png', '/../../secret.png', '..'])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / 'val' / 'a').mkdir(parents=True)
    Image.new('RGB', (4, 4)).save(tmp_path / 'secret.png')
    with pytest.raises(ValueError, match=r'the image file name .* leads out of the folder'):
        image_file(tmp_path / 'val', name)


def test_absolute_names_are_found_from_the_root_only(tmp_path):
    (tmp_path / 'val').mkdir()
    secret = tmp_path / 'secret.png'
    Image.new('RGB', (4, 4)).save(secret)
    assert image_file(tmp_path / 'val', str(secret)) == tmp_path / 'val/secret.png'
    assert not image_file(tmp_path / 'val', str(secret)).exists()
    assert image_file('/', str(secret)) == secret
    assert image_file(tmp_path / 'val', 'a/../b.png') == tmp_path / 'val/b.png'


def test_report_does_not_embed_files_outside(tmp_path):
    from mmtied.evaluation import evaluate
    (tmp_path / 'val').mkdir()
    Image.new('RGB', (9, 9)).save(tmp_path / 'secret.png')
    for name in ('../secret.png', str(tmp_path / 'secret.png')):
        data = dict(images=[dict(id=1, height=9, width=9, file_name=name)], categories=[dict(id=1, name='a')],
                    annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16)])
        result = evaluate(data, [dict(image_id=1, category_id=1, bbox=[0, 0, 4, 4], score=.5)])
        with pytest.raises(ValueError, match='leads out of the folder|lacks 1 of the 1 images'):
            result.save(tmp_path / 'out', images=tmp_path / 'val')
    assert not (tmp_path / 'out').exists()


def test_postscript_is_not_run(tmp_path):
    (tmp_path / 'x.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')
    with pytest.raises(ValueError, match='cannot be read as an image'):
        read_image(tmp_path / 'x.jpg')
