"""VisDrone's text files and Open Images' tables, with their rules for ignoring objects, and oddities of tools."""

import numpy as np
import pytest
from PIL import Image

from mmtied.evaluation import Evaluation, evaluate, read_ground_truth

VISDRONE = '684,8,100,50,0,0,0,0\n10,20,30,40,1,4,0,2\n15,20,30,40,1,1,1,0\n200,20,30,40,1,11,0,0\n300,20,30,40,0,5,0,0,\n'
TABLE = ('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n'
         'aa,xclick,/m/01g317,1,0.1,0.3,0.2,0.6,1,0,0,0,0\naa,xclick,/m/01g317,1,0.5,0.9,0.2,0.6,0,0,1,0,0\n'
         'bb,xclick,/m/0199g,1,0,1,0,1,-1,0,0,0,0\n')


@pytest.fixture
def visdrone(tmp_path):
    for name in ('annotations', 'images'):
        (tmp_path / name).mkdir()
    (tmp_path / 'annotations/000_d_1.txt').write_text(VISDRONE)
    (tmp_path / 'annotations/000_d_2.txt').write_text('')
    for number in (1, 2):
        Image.new('RGB', (800, 400)).save(tmp_path / f'images/000_d_{number}.jpg')
    return tmp_path


@pytest.fixture
def open_images(tmp_path):
    (tmp_path / 'boxes.csv').write_text(TABLE)
    (tmp_path / 'class-descriptions-boxable.csv').write_text('/m/01g317,Person\n/m/0199g,Bicycle\n')
    (tmp_path / 'pictures').mkdir()
    for stem in ('aa', 'bb', 'cc'):
        Image.new('RGB', (100, 50)).save(tmp_path / f'pictures/{stem}.jpg')
    return tmp_path / 'boxes.csv'


def test_visdrone(visdrone):
    truth = read_ground_truth(visdrone)
    assert truth.image_ids.tolist() == ['000_d_1', '000_d_2'] and truth.image_sizes.tolist() == [[400, 800]] * 2
    assert list(truth.category_names.values()) == ['pedestrian', 'people', 'bicycle', 'car', 'van', 'truck', 'tricycle',
                                                   'awning-tricycle', 'bus', 'motor']
    # Two regions without a category, repeated for ten categories, and the van of score 0.
    assert truth.crowd.sum() == 21 and len(truth.crowd) == 23
    np.testing.assert_array_equal(truth.boxes_xywh[~truth.crowd], [[10, 20, 30, 40], [15, 20, 30, 40]])
    assert [value for value, crowd in zip(truth.fields['occlusion'], truth.crowd, strict=True) if not crowd] == [2, 0]
    assert any('3 boxes are ignored' in note for note in truth.notes)


def test_detections_in_ignored_regions_are_ignored(visdrone):
    found = visdrone / 'found'
    found.mkdir()
    inside = '690,10,40,40,0.99,4,-1,-1\n205,25,9,9,0.98,9,-1,-1\n'
    (found / '000_d_1.txt').write_text(f'{inside}10,20,30,40,0.9,4,-1,-1\n15,20,30,40,0.8,1,-1,-1\n')
    row = evaluate(visdrone, found).report['bbox']['all']
    assert row['AP'] == pytest.approx(1) and row['instances'] == 2
    by_level = evaluate(visdrone, found, Evaluation(definition='field:occlusion', unit='instance', edges=(0, 1, 2, 3)))
    assert [bucket['instances'] for bucket in by_level.report['bbox']['buckets']] == [1, 0, 0, 1]


def test_open_images(open_images):
    truth = read_ground_truth(open_images, image_folder=open_images.parent / 'pictures')
    assert truth.image_ids.tolist() == ['aa', 'bb']
    np.testing.assert_allclose(truth.boxes_xywh, [[10, 10, 20, 20], [50, 10, 40, 20], [0, 0, 100, 50]])
    assert truth.crowd.tolist() == [False, True, False]
    assert list(truth.category_names.values()) == ['Person', 'Bicycle']
    assert truth.fields['IsOccluded'] == [1, 0, 0]  # -1: unknown
    assert any('1 group boxes' in note for note in truth.notes)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda folder: (folder / 'images/000_d_2.jpg').unlink(), '1 of 2 text files have no image in .*, such as 000_d_2.txt'),
    (lambda folder: (folder / 'annotations/000_d_2.txt').write_text('1,2,3'), "000_d_2.txt: line 1: expected left,top.*'1,2,3'"),
    (lambda folder: (folder / 'annotations/000_d_2.txt').write_text('1,2,3,4,1,12,0,0'), 'category from 0 to 11'),
])
def test_faults_of_visdrone_are_one_line(visdrone, change, message):
    change(visdrone)
    with pytest.raises(ValueError, match=message) as error:
        read_ground_truth(visdrone)
    assert '\n' not in str(error.value)


def test_faults_of_open_images_are_one_line(open_images):
    pictures = open_images.parent / 'pictures'
    with pytest.raises(ValueError, match=r'boxes are relative to the image size, so images are needed: --images FOLDER'):
        read_ground_truth(open_images)
    open_images.write_text(TABLE.replace('0.1,0.3', 'left,0.3'))
    with pytest.raises(ValueError, match='line 2: XMin, XMax, YMin and YMax must be numbers'):
        read_ground_truth(open_images, image_folder=pictures)
    open_images.write_text(TABLE.replace('bb,', 'dd,'))
    with pytest.raises(ValueError, match="line 4: .* has no image 'dd'"):
        read_ground_truth(open_images, image_folder=pictures)


@pytest.mark.parametrize(('written', 'groups'), [('True', 1), ('1.0', 1), ('TRUE', 1), ('yes', 1), ('False', 0), ('-1', 0)])
def test_flags_of_open_images_as_tools_write_them(open_images, written, groups):
    open_images.write_text(TABLE.replace(',0,0,1,0,0', f',0,0,{written},0,0'))
    truth = read_ground_truth(open_images, image_folder=open_images.parent / 'pictures')
    assert truth.crowd.sum() == groups
    open_images.write_text(TABLE.replace(',0,0,1,0,0', ',0,0,maybe,0,0'))
    with pytest.raises(ValueError, match="line 3: IsGroupOf must be 0 or 1, got 'maybe'"):
        read_ground_truth(open_images, image_folder=open_images.parent / 'pictures')


def test_byte_order_marks_hidden_files_and_upper_case(visdrone):
    plain = read_ground_truth(visdrone)
    path = visdrone / 'annotations/000_d_1.txt'
    path.write_text(VISDRONE, encoding='utf-8-sig')
    path.rename(path.with_suffix('.TXT'))
    (visdrone / 'annotations/._000_d_1.txt').write_bytes(b'\0Mac')
    np.testing.assert_array_equal(read_ground_truth(visdrone).boxes_xywh, plain.boxes_xywh)
