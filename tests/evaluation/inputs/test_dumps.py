"""Check dumps written by mmdet's own metric against OcclusionCocoMetric on the same predictions."""

import collections
import copy
import json
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmtied.evaluation.inputs.categories import label_category_ids
from mmtied.evaluation.inputs.dumps import dump_detections, read_dump
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import ResultReading
from mmtied.evaluation.inputs.tensor_pickle import read_tensor_pickle
from mmtied.evaluation.protocol import STATISTICS
from tests.helpers.coco_oracle import report_of

SIZE = dict(height=20, width=30)
DATA = dict(images=[dict(id=4, **SIZE), dict(id=9, **SIZE)], annotations=[],
            categories=[dict(id=18, name='dog'), dict(id=1, name='person'), dict(id=17, name='cat')])


def image(image_id=4, **changes):
    instances = dict(bboxes=torch.tensor([[1., 2., 4., 8.], [0., 0., 9., 9.]]), scores=torch.tensor([.5, .25]),
                     labels=torch.tensor([2, 0]))
    return dict(img_id=image_id, ori_shape=(20, 30), pred_instances={**instances, **changes})


def written(tmp_path, content, protocol=2):
    path = tmp_path / 'predictions.pkl'
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize('seed', [0, 1])
def test_results_match_metric(tmp_path, seed):
    pytest.importorskip('mmdet')
    from mmdet.evaluation import DumpDetResults

    from mmtied.evaluation.metric import OcclusionCocoMetric
    from tests.helpers.samples import CLASSES, make_data, make_samples

    rng = np.random.default_rng(seed)
    annotations = tmp_path / 'instances.json'
    annotations.write_text(json.dumps(make_data(rng)))
    samples = make_samples(json.loads(annotations.read_text()), rng)
    dump = DumpDetResults(out_file_path=str(tmp_path / 'predictions.pkl'))
    dump.process({}, copy.deepcopy(samples))
    dump.evaluate(len(samples))
    metric = OcclusionCocoMetric(ann_file=str(annotations), metric=['bbox', 'segm'], edges=(0, .4, 1))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, samples)
    metric.evaluate(len(samples))

    ground_truth, entries = read_ground_truth(annotations), read_dump(tmp_path / 'predictions.pkl')
    detections = {name: dump_detections(entries, ground_truth, name, reading=ResultReading(CLASSES)) for name in ('bbox', 'segm')}
    report = report_of(ground_truth, detections, edges=(0, .4, 1), category_ids=label_category_ids(ground_truth, CLASSES))
    for iou_type in ('bbox', 'segm'):
        for ours, theirs in zip([report[iou_type]['all'], *report[iou_type]['buckets']],
                                [metric.report[iou_type]['all'], *metric.report[iou_type]['buckets']], strict=True):
            assert {name: ours[name] for name in STATISTICS} == {name: theirs[name] for name in STATISTICS}
        assert 0 < report[iou_type]['all']['AP'] < 1


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_pickle_protocol(tmp_path, protocol):
    content = [dict(a=torch.arange(6).reshape(2, 3)[:, 1:], half=torch.ones(2, dtype=torch.float16), empty=torch.zeros(0, 4),
                    array=np.arange(4.).reshape(2, 2), number=np.float32(.5), none=None, ints=np.arange(3, dtype='>i2'),
                    columns=np.asfortranarray(np.arange(6).reshape(2, 3)),
                    moved=np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), bools=np.array([True, False]),
                    bool_tensor=torch.tensor([True, False]), wide=torch.ones(1).expand(3),
                    no_rows=np.empty((0, 4)), imaginary=np.array([1j]), scalar=torch.tensor(3), nested=([(np.ones(2),)], {}),
                    others=(1, 2.5, 'x', b'y', True, {3}, frozenset({4}), 1j, bytearray(b'z')))]
    content = copy.deepcopy(content)
    read = read_tensor_pickle(written(tmp_path, content, protocol))
    assert read[0].keys() == content[0].keys()
    for key, value in content[0].items():
        assert type(read[0][key]) is type(value)
        if isinstance(value, torch.Tensor):
            assert read[0][key].dtype == value.dtype and torch.equal(read[0][key], value)
        else:
            np.testing.assert_equal(read[0][key], value)
        if isinstance(value, np.ndarray):
            assert read[0][key].dtype == value.dtype and read[0][key].flags.writeable


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_storage_stays_shared(tmp_path, protocol):
    array, tensor = np.arange(3.), torch.arange(3.)
    loop = [array, tensor, (array, tensor), {'a': (array,)}]
    loop.append((loop,))
    read = read_tensor_pickle(written(tmp_path, loop, protocol))
    assert read[2][0] is read[3]['a'][0] is read[0] and read[2][1] is read[1] and read[4][0] is read
    assert type(read[0]) is np.ndarray and type(read[1]) is torch.Tensor


def test_ordered_dict(tmp_path):
    read = read_tensor_pickle(written(tmp_path, collections.OrderedDict(b=np.ones(1), a=2)))
    assert type(read) is dict and list(read) == ['b', 'a'] and read['b'].tolist() == [1]


def test_labels_follow_category_order(tmp_path):
    ground_truth = read_ground_truth(DATA)
    entries = read_dump(written(tmp_path, [image(9), image(4)]))
    boxes = dump_detections(entries, ground_truth, 'bbox')
    assert ground_truth.category_ids[boxes.category].tolist() == [17, 18, 17, 18]
    assert ground_truth.image_ids[boxes.image].tolist() == [9, 9, 4, 4]
    assert boxes.boxes_xywh[:2].tolist() == [[1, 2, 3, 6], [0, 0, 9, 9]]
    assert boxes.area[:2].tolist() == [18, 81]
    fewer = read_dump(written(tmp_path, [image(labels=torch.tensor([1, 0]))]))
    found = dump_detections(fewer, ground_truth, 'bbox', reading=ResultReading(['cat', 'person']))
    assert ground_truth.category_ids[found.category].tolist() == [17, 1]


def test_broken_mask_error_names_file_and_image():
    whole, broken = ({'size': [20, 30], 'counts': counts} for counts in ('07ab0', '07d?'))
    entries = [image(9, masks=[whole, whole]), image(4, masks=[whole, broken])]
    with pytest.raises(ValueError, match='^a.pkl: image id 4: its run-length code is broken or truncated: .* 20 x 30'):
        dump_detections(entries, read_ground_truth(DATA), 'segm', source='a.pkl')


def test_dump_without_detections(tmp_path):
    ground_truth = read_ground_truth(DATA)
    nothing = image(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64), masks=[])
    for content in ([], [nothing]):
        for iou_type in ('bbox', 'segm'):
            assert len(dump_detections(read_dump(written(tmp_path, content)), ground_truth, iou_type).score) == 0


class Calls:
    """Object pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(('function', 'args', 'name'), [
    (os.mkdir, ['ran'], f'{os.name}.mkdir'),
    (eval, ["__import__('os').mkdir('ran')"], '.eval'),
    (getattr, [np.ndarray, 'tofile'], '.getattr'),
    (np.load, ['x.npy'], 'numpy.load'),
    (torch.load, ['x.pth'], 'torch.serialization.load'),
])
def test_rejects_other_callables(tmp_path, monkeypatch, protocol, function, args, name):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, [image(bboxes=Calls(function, *args))], protocol)
    with pytest.raises(ValueError, match='refused, as the pickle needs') as error:
        read_dump(path)
    assert name in str(error.value)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'ran').exists()
    pickle.loads(pickle.dumps(Calls(os.mkdir, 'ran')))  # what pickle would have done
    assert (tmp_path / 'ran').exists()


def test_rejects_other_callables_in_tensor_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / 'inner.pth'
    torch.save(Calls(os.mkdir, 'ran'), inner, _use_new_zipfile_serialization=False)
    path = written(tmp_path, [image(bboxes=Calls(torch.storage._load_from_bytes, inner.read_bytes()))])
    with pytest.raises(ValueError, match='refused, as the pickle needs a tensor whose bytes') as error:
        read_dump(path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'ran').exists()


def glob(module, name):
    """Return the opcode that pushes a class or function."""
    return f'c{module}\n{name}\n'.encode()


def built(*content):
    """Join the opcodes of a pickle: bytes unchanged, other content pickled."""
    return b''.join(part if isinstance(part, bytes) else pickle.dumps(part, 2)[2:-1] for part in content) + b'.'


DTYPE, OBJECT_STATE = glob('numpy', 'dtype'), (3, '|', None, None, None, -1, -1, 0)
NUMPY, REBUILD = 'numpy._core.multiarray', glob('torch._utils', '_rebuild_tensor_v2')
EVIL = {
    'objects as numbers': built(glob(NUMPY, 'scalar'), b'(', DTYPE, ('O8', False, True), b'R', OBJECT_STATE, b'b',
                                b'C\x08AAAAAAAA', b'tR'),
    'an array of objects': built(glob(NUMPY, '_reconstruct'), b'(', glob('numpy', 'ndarray'), (0,), b'C\x01b', b'tR(', 1, (1,),
                                 DTYPE, ('O8', False, True), b'R', OBJECT_STATE, b'b', False, b'C\x08AAAAAAAA', b'tb'),
    'numbers that become objects': built(DTYPE, ('f8', False, True), b'R', (3, '|', None, ('a',), {'a': 1}, 8, 1, 63), b'b'),
    'a structure': built(DTYPE, ('i1,O', False, True), b'R'),
    'texts': built(DTYPE, ('U2', False, True), b'R'),
    'defaults of a function': built(REBUILD, (None, {'__defaults__': (1,)}), b'b'),
    'attributes of a function': built(REBUILD, {'marked': 1}, b'b'),
    'the call of a function': built(REBUILD, (None, {'_call': 1}), b'b'),
    'attributes of an array class': built(glob('numpy', 'ndarray'), {'marked': 1}, b'b'),
    'another encoding': built(glob('_codecs', 'encode'), ('a', 'rot13'), b'R'),
    'many bytes to change': built(glob('builtins', 'bytearray'), (1 << 40,), b'R'),
    'a function as a value': built(b'(', REBUILD, b'l'),
}


def test_rejects_malicious_pickles(tmp_path):
    for number, content in enumerate(EVIL.values()):
        (tmp_path / f'{number}.pkl').write_bytes(content)
    # In a separate process, as some of these used to kill it.
    code = ('import sys, torch; from mmtied.evaluation.inputs.tensor_pickle import read_tensor_pickle\n'
            'rebuild = torch._utils._rebuild_tensor_v2\n'
            'for path in sys.argv[1:]:\n'
            '    try: print(read_tensor_pickle(path))\n'
            '    except ValueError as error: print(rebuild.__defaults__ == (None,) and not hasattr(rebuild, "marked"), error)')
    paths = [str(tmp_path / f'{number}.pkl') for number in range(len(EVIL))]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *paths], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, [done.stderr, list(EVIL)[len(lines):]]
    for evil, path, line in zip(EVIL, paths, lines, strict=True):
        assert line.startswith(f'True {path}: refused, as the pickle needs '), (evil, line)


def tensor_bytes(tensor):
    """Return the pickle of a tensor's storage, as contained in the tensor's own pickle."""
    return tensor.__reduce_ex__(2)[1][0].__reduce__()[1][0]


@pytest.mark.parametrize(('size', 'stride', 'offset'), [
    ((4,), (1,), 0), ((3,), (1,), 1), ((1,), (1,), -1), ((2,), (-1,), 2), ((-1,), (1,), 0), ((1 << 40,), (0,), 0), ((2,), (), 0),
    ((1 << 40,), (1,), 0),
])
def test_rejects_tensor_outside_storage(tmp_path, size, stride, offset):
    storage = built(glob('torch.storage', '_load_from_bytes'), (tensor_bytes(torch.ones(3)),), b'R')[:-1]
    path = written(tmp_path, built(REBUILD, b'(', storage, offset, size, stride, False, {}, b'tR'))
    with pytest.raises(ValueError, match=r'predictions\.pkl: the file is not a complete pickle'):
        read_tensor_pickle(path)
    right = written(tmp_path, built(REBUILD, b'(', storage, 1, (2,), (1,), False, {}, b'tR'))
    assert read_tensor_pickle(right).tolist() == [1, 1]
    changed = built(REBUILD, b'(', storage, 1, (2,), (1,), False, {}, b'tR')[:-1]
    with pytest.raises(ValueError, match='refused, as the pickle needs a change of tensor'):
        read_tensor_pickle(written(tmp_path, built(changed, (storage[:0], 0, (9,), (1,)), b'b')))


@pytest.mark.parametrize(('shape', 'data'), [((3,), b'A' * 16), ((-2,), b'A' * 16), ((1 << 62, 4), b''), ((2,), 'A' * 16)])
def test_rejects_array_of_wrong_size(tmp_path, shape, data):
    array = built(glob(NUMPY, '_reconstruct'), b'(', glob('numpy', 'ndarray'), (0,), b'C\x01b', b'tR(', 1, shape, DTYPE,
                  ('f8', False, True), b'R', False, b'B' + len(data).to_bytes(4, 'little') + data
                  if isinstance(data, bytes) else data, b'tb')
    with pytest.raises(ValueError, match=r'predictions\.pkl: '):
        read_tensor_pickle(written(tmp_path, array))


def test_truncated_file(tmp_path):
    whole = pickle.dumps([image()], 2)
    ends = [position for _, _, position in pickletools.genops(whole)][1:]
    for end in {*ends, *(end + 1 for end in ends[:-1])} - {len(whole)}:
        with pytest.raises(ValueError, match=r'predictions\.pkl: the file is not a complete pickle'):
            read_dump(written(tmp_path, whole[:end]))
    with pytest.raises(ValueError, match='the file is empty'):
        read_dump(written(tmp_path, b''))


@pytest.mark.parametrize(('content', 'message'), [
    (dict(a=1), 'a list was expected, got dict; expected a file written by mmdet'),
    ([dict(pred_label=1, img_id=4)], "has no 'pred_instances'.*; expected a file written by mmdet"),
    ([dict(pred_instances={})], "has no 'img_id'.*; expected a file written by mmdet"),
    ([dict(img_id=4, pred_instances=dict(scores=1))], "has no 'bboxes'.*; expected a file written by mmdet"),
    ([dict(img_id=4, pred_instances=[])], 'an object was expected, got list'),
])
def test_rejects_other_layouts(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_dump(written(tmp_path, content))


@pytest.mark.parametrize(('entries', 'iou_type', 'classes', 'message'), [
    ([image(5)], 'bbox', None, r'dump\[0\]: image id 5 is not in the annotation file'),
    ([image(), image(scores=torch.tensor([.1, .2]))], 'bbox', None, 'dump: image id 4 is repeated with other predictions'),
    ([image(4.5)], 'bbox', None, r'dump\[0\]: the image id must be an integer id or a file name, got 4.5'),
    ([image(labels=torch.tensor([0, 3]))], 'bbox', None, 'image id 4: label 3 is outside 0 to 2, the 3 categories of annotat'),
    ([image(labels=torch.tensor([-1, 0]))], 'bbox', None, 'label -1 is outside 0 to 2'),
    ([image()], 'bbox', ['cat', 'dog'], 'label 2 is outside 0 to 1, the 2 categories of --classes'),
    ([image()], 'bbox', ['cat', 'bird'], "no category named 'bird'; it has dog, person, cat"),
    ([image()], 'bbox', ['cat', 'cat'], "'cat' is repeated"),
    ([image(labels=torch.tensor([.5, 1.]))], 'bbox', None, r"'labels' must be an array or tensor of integers of shape \(n\)"),
    ([image(scores=torch.tensor([.5]))], 'bbox', None, r"'scores' must be .* shape \(2\), got shape \(1,\) of float64"),
    ([image(scores=torch.tensor([.5, torch.nan]))], 'bbox', None, "'scores' must be finite"),
    ([image(bboxes=torch.zeros(2, 5))], 'bbox', None, r"'bboxes' must be .* shape \(2, 4\), got shape \(2, 5\)"),
    ([image(bboxes=[[0, 0, 1, 1]] * 2)], 'bbox', None, "'bboxes' must be .* got list"),
    ([image(bboxes=torch.full((2, 4), torch.inf))], 'bbox', None, "'bboxes' must be finite"),
    ([image()], 'segm', None, "no 'masks', which segm needs"),
    ([image(masks=[])], 'segm', None, "'masks' must be 2 masks, or a list of 2 run-length codes, got 0 of them"),
    ([image(masks=torch.zeros(2, 20, 30))], 'segm', None, "'masks' must be boolean .* got float32 .* pass masks > 0.5"),
    ([image(masks=[1, 2])], 'segm', None, "image id 4: 'masks' must be run-length codes, dicts with .* got 1$"),
    ([image(masks=[dict(size=[20, 30], counts=5)] * 2)], 'segm', None, "image id 4: 'masks' must be run-length codes, dicts"),
    ([image(masks=np.ones((1, 20, 30), bool))], 'segm', None, r"'masks' must be boolean .* \(2, height, width\), or run-length"),
    ([image(masks=[dict(size=[9, 9], counts=b'')] * 2)], 'segm', None, r'its mask has size \[9, 9\], its image \[20, 30\]'),
])
def test_rejects_dump_of_other_annotations(entries, iou_type, classes, message):
    with pytest.raises(ValueError, match=message) as error:
        dump_detections(entries, read_ground_truth(DATA), iou_type, reading=ResultReading(classes))
    assert '\n' not in str(error.value)
