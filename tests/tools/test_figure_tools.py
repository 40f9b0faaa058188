"""Run tools/grad_cam.py, samples.py and accuracy_over_size.py on tiny networks and small files."""

import json

import numpy as np
import pytest
from PIL import Image

from mmtied.analysis.accuracy_over_size import plot_accuracy_over_size, printed_points, read_points, zoo_points
from mmtied.analysis.example_images import most_occluded
from mmtied.evaluation import instance_ratios, read_ground_truth
from tests.helpers.published import DATA
from tests.helpers.tiny_networks import CIFAR, CLASSIFIER, DETECTOR, write_images, write_network
from tests.helpers.tools import run_in_process

BOXES = {0: [[5, 5, 40, 40]], 1: [[5, 5, 40, 40], [25, 5, 40, 40], [70, 50, 8, 8]], 2: [[5, 5, 50, 50], [6, 6, 50, 50]]}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A detector, a classifier, three images of which two have occluded objects, annotations and results."""
    pytest.importorskip('mmdet')
    folder = tmp_path_factory.mktemp('figures')
    images = [dict(id=number, file_name=path.name, height=60, width=90)
              for number, path in enumerate(write_images(folder / 'images'))]
    annotations = [dict(id=10 * image + number, image_id=image, category_id=1 + number % 2, bbox=box, area=box[2] * box[3])
                   for image, boxes in BOXES.items() for number, box in enumerate(boxes)]
    data = dict(images=images, annotations=annotations, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])
    (folder / 'data.json').write_text(json.dumps(data))
    results = [dict(image_id=one['image_id'], category_id=one['category_id'], bbox=one['bbox'], score=score)
               for one in annotations for score in (.9, .04)]
    (folder / 'results.json').write_text(json.dumps(results))
    write_network(folder, DETECTOR, 'detector')
    return folder


@pytest.fixture
def run(monkeypatch, capfd, files):
    monkeypatch.chdir(files)
    return lambda tool, *arguments: run_in_process(f'{tool}.py', arguments, monkeypatch, capfd)


def test_most_occluded_instance_is_large_where_there_is_one(files):
    ground_truth = read_ground_truth(str(files / 'data.json'))
    ratios = instance_ratios(ground_truth)
    assert ground_truth.annotation_ids[most_occluded(ground_truth, 1, ratios)] in (10, 11)
    assert ground_truth.annotation_ids[most_occluded(ground_truth, 0, ratios)] == 0


def test_cam_of_a_detector_and_a_classifier(run, files, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    pytest.importorskip('mmpretrain')
    classifier = write_network(tmp_path, CLASSIFIER, classes=('cat', 'horse', 'cow'))
    code, printed, err = run('grad_cam', 'detector.py', 'detector.pth', *classifier, '--images', 'images/1.png', 'images/2.png',
                             '--out', tmp_path / 'cam.png', '--names', 'D', 'C')
    assert code == 0, err
    lines = dict(line.split(': ', 1) for line in printed.splitlines() if line.startswith(('D: ', 'C: ')))
    assert len(lines['D'].split(', ')) == 2 and 'not found' not in lines['D']  # of its own detections
    assert all(text.split()[0] in ('cat', 'horse', 'cow') for text in lines['C'].split(', '))
    with Image.open(tmp_path / 'cam.png') as picture:
        assert len(np.unique(np.asarray(picture.convert('RGB')).reshape(-1, 3), axis=0)) > 500


def test_cam_of_a_classifier_of_cifar(run, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    pytest.importorskip('mmpretrain')
    network = write_network(tmp_path, CIFAR, classes=('cat', 'horse', 'cow'))
    code, printed, err = run('grad_cam', *network, '--images', 'images/1.png', '--out', tmp_path / 'cam.png')
    assert code == 0, err
    line = next(line for line in printed.splitlines() if line.startswith('network: '))  # mmpretrain may print before
    assert line.split()[1] in ('cat', 'horse', 'cow')


def test_cam_without_names_of_classes(run, files, tmp_path):
    """Other detectors without class names look for the first detector's label."""
    pytest.importorskip('pytorch_grad_cam')
    config = (files / 'detector.py').read_text().replace("metainfo=dict(classes=('cat', 'dog')), ", '')
    (tmp_path / 'nameless.py').write_text(config)
    nameless = tmp_path / 'nameless.py', 'detector.pth'
    code, printed, err = run('grad_cam', *nameless, 'detector.py', 'detector.pth', '--images', 'images/1.png',
                             '--out', tmp_path / 'cam.png', '--names', 'A', 'B')
    assert code == 0, err
    lines = dict(line.split(': ', 1) for line in printed.splitlines() if line.startswith(('A: ', 'B: ')))
    words = {'class 0': 'cat', 'class 1': 'dog'}
    name, score = lines['A'].rsplit(' ', 1)
    assert lines['B'] == f'{words[name]} {score}'


def test_cam_skips_images_without_files(run, files, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/2.png').write_bytes((files / 'images/2.png').read_bytes())
    arguments = ['grad_cam', 'detector.py', 'detector.pth', '--images', tmp_path / 'images', '--annotations', 'data.json',
                 '--bucket', '.1', '1', '--out', tmp_path / 'cam.png']
    code, _, err = run(*arguments)
    assert code == 2 and '--skip-missing draws others in their place' in err
    code, printed, err = run(*arguments, '--skip-missing')
    assert code == 0, err
    assert len([line for line in printed.splitlines() if line.startswith('detector: ')][0].split(', ')) == 1


def test_cam_refuses_a_head_that_runs_for_every_level(run, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    code, _, err = run('grad_cam', 'detector.py', 'detector.pth', '--images', 'images/1.png', '--layers', 'bbox_head.retina_cls',
                       '--out', tmp_path / 'cam.png')
    assert code == 2
    assert err.splitlines()[-1].startswith('error: Grad-CAM: layer bbox_head.retina_cls runs more than once for an image')


def test_cam_of_occluded_instances(run, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    code, printed, err = run('grad_cam', 'detector.py', 'detector.pth', '--images', 'images', '--annotations', 'data.json',
                             '--bucket', '.5', '1', '--out', tmp_path / 'cam.jpg', '--layers', 'backbone.layer3')
    assert code == 0, err
    assert (tmp_path / 'cam.jpg').is_file()


def test_samples_without_a_detection_to_draw_say_so(run, tmp_path):
    code, _, err = run('samples', 'data.json', 'images', '--results', 'results.json', '--bucket', '.1', '1', '--score', '50',
                       '--out', tmp_path / 'samples.png')
    assert code == 0 and 'warning: results.json: nothing to draw: no score reaches 50; the highest is 0.' in err


def test_samples_of_a_network_and_a_results_file(run, tmp_path):
    code, _, err = run('samples', 'data.json', 'images', '--results', 'results.json', '--networks', 'detector.py', 'detector.pth',
                       '--bucket', '.1', '1', '--score', '.3', '--out', tmp_path / 'samples.png')
    assert code == 0, err
    from mmtied.launch.samples import annotated, from_results
    ground_truth = read_ground_truth('data.json')
    source, with_masks = from_results(ground_truth, 'results.json', .05)
    shapes = source(1)
    assert not with_masks and shapes.boxes_xywh.tolist() == BOXES[1]
    assert list(shapes.labels) == ['cat 0.90', 'dog 0.90', 'cat 0.90']
    assert len(from_results(ground_truth, 'results.json', .01)[0](1).labels) == 6
    assert list(annotated(ground_truth, masks=False)(2).labels) == ['cat', 'dog']


@pytest.mark.parametrize(('tool', 'arguments', 'message'), [
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--out', 'a.gif'],
     'error: a.gif: expected a file name that ends with .png, .jpg, .pdf or .svg'),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--out', 'a.png', '--category', 'cow'],
     "error: detector: no class 'cow'; the network has cat, dog"),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--out', 'a.png', '--layers', 'backbone.layer9'],
     "error: detector: no layer named 'backbone.layer9'; the backbone has "),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--annotations', 'data.json', '--out', 'a.png',
                  '--bucket', '.99', '1'], 'error: data.json: no image in the bucket '),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--annotations', 'data.json', '--out', 'a.png',
                  '--category', 'cat'], 'error: --category: not allowed with --annotations'),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'none', '--annotations', 'data.json', '--out', 'a.png'],
     'error: none: no such folder of images'),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'data.json', '--out', 'a.png'],
     'error: data.json: cannot be read as an image'),
    ('grad_cam', ['detector.py', 'detector.pth', '--images', 'images', '--num', '1', '--seed', '-1', '--out', 'a.png'],
     'error: --seed -1: expected 0 or more'),
    ('samples', ['data.json', 'none', '--out', 'a.png', '--results', 'results.json'], 'error: none: no such folder of images'),
    ('samples', ['data.json', 'images', '--out', 'a.png', '--results', 'results.json', '--seed', '-1', '--bucket', '.1', '1'],
     'error: --seed -1: expected 0 or more'),
    ('grad_cam', ['detector.py', '--images', 'images', '--out', 'a.png'], 'error: expected pairs of a config and a checkpoint'),
    ('samples', ['data.json', 'images', '--out', 'a.png'], 'error: expected --results FILE ... or --networks CONFIG CHECKPOINT'),
    ('samples', ['data.json', 'images', '--out', 'a.png', '--results', 'results.json', '--names', 'a', 'b'],
     'error: --names: 2 names for 1 detectors'),
    ('samples', ['data.json', 'images', '--out', 'a.png', '--results', 'none.json'], 'error: none.json'),
    ('samples', ['none.json', 'none', '--out', 'a.png', '--results', 'none.json', '--num', '0'],
     'error: --num 0: expected at least 1'),
    ('samples', ['none.json', 'none', '--out', 'a.png', '--results', 'none.json', '--bucket', '.5', '.4'],
     'error: bucket: expected two numbers 0 <= lower < upper'),
    ('grad_cam', ['none.py', 'none.pth', '--images', 'none', '--annotations', 'none.json', '--out', 'a.png', '--num', '0'],
     'error: --num 0: expected at least 1'),
    ('accuracy_over_size', ['--out', 'a.png', '--add', 'none.csv'], 'error: none.csv: no such file'),
    ('accuracy_over_size', ['--out', 'a.png', '--run', 'detector.py', 'data.json'], 'error: data.json: not an occlusion report'),
])
def test_mistakes_are_one_line(run, files, tool, arguments, message):
    if tool == 'grad_cam':
        pytest.importorskip('pytorch_grad_cam')
    code, _, err = run(tool, *arguments)
    assert code == 2
    assert err.count('error: ') == 1
    assert [line for line in err.splitlines() if line.startswith('error: ')][0].startswith(message)
    assert not (files / 'a.png').exists()


def test_sizes_draw_printed_figures_and_added_ones(run, files, tmp_path):
    (tmp_path / 'mine.csv').write_text('detector,backbone,params,box_ap,mask_ap\nRetinaNet,mine,20.5,39.1,\n')
    row = {'images': 3, 'instances': 6, 'categories': 2, 'AP': .25}
    report = {'definition': 'covered', 'name': 'tiny',
              'bbox': {'all': row, 'buckets': [{**row, 'name': 'all', 'lower': 0, 'upper': 1}]}}
    (tmp_path / 'report.json').write_text(json.dumps(report))
    code, printed, err = run('accuracy_over_size', '--out', tmp_path / 'sizes.svg', '--add', tmp_path / 'mine.csv',
                             '--run', 'detector.py', tmp_path / 'report.json')
    assert code == 0, err
    text = (tmp_path / 'sizes.svg').read_text()
    assert '>mine<' in text and '>tiny<' in text
    from mmtied.launch.networks import run_point
    assert run_point('detector.py', tmp_path)[:4] == ('RetinaNet', 'tiny', pytest.approx(.83, abs=.02), 25.)


def test_printed_points_are_those_of_the_tables():
    tables = json.loads((DATA / 'tied_block_convolution_rows.json').read_text())
    params = {row[0]: row[1] for row in tables['table 1']}
    expected = {(detector, backbone, params[backbone], box, mask[0] if mask else None)
                for table in ('table A.1', 'table A.2') for detector, backbone, schedule, box, *mask in tables[table]
                if (detector, schedule) in (('RetinaNet', '2x'), ('Cascade R-CNN', '20e'), ('Mask R-CNN', '2x'))}
    assert {tuple(point[:5]) for point in printed_points()} == expected
    drawn = plot_accuracy_over_size(printed_points() + zoo_points()).axes[0]
    assert {text.get_text() for text in drawn.texts} == {'50', '101', '50-S', '101-S', '101-64x4d'}


@pytest.mark.parametrize(('text', 'message'), [
    ('detector,backbone,params\n', "no column 'box_ap'"),
    ('detector,backbone,params,box_ap\nYOLO,a,1,2\n', "line 2: detector 'YOLO', expected one of RetinaNet, Cascade R-CNN, Mask"),
    ('detector,backbone,params,box_ap\nRetinaNet,a,many,2\n', "line 2: params 'many', expected a number"),
    ('detector,backbone,params,box_ap\nRetinaNet,a,0,2\n', "line 2: params '0', expected millions of parameters"),
    ('detector,backbone,params,box_ap\nRetinaNet,a,9,230\n', 'line 2: box_ap 230, expected percent from 0 to 100'),
])
def test_files_that_cannot_be_added(tmp_path, text, message):
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / 'a.csv')
