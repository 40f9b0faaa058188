"""Examples for the fuzzer: a tool, its arguments and files, from valid ones of each layout to broken ones."""

import base64
import copy
import gzip
import io
import json
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import strategies as st

from tests.helpers.coco_oracle import cases

#: Values that stand where others are expected.
ODD = [None, True, False, 0, -1, 1, 2, 1.5, -0., 1e200, 1e308, 5e-324, float('nan'), float('inf'), 2**31, 2**53 + 1, 2**63, 2**64,
       -2**63 - 1, 10**400, '', 'x' * 400, '1', ' 1', '1' * 400, '\ud800', '\0', 'é\n\u202e', '=1+1', '../../etc/passwd',
       '/etc/passwd', [], {}, [[]], [1], [True], [None], [1] * 5, {'a': 1}, {'size': [9, 9], 'counts': '0'},
       {'size': [130, 170], 'counts': [2**31, -1]}, 'nested']
DEFINITIONS = ['covered', 'union', 'pairwise', 'instance_mean', 'max_iou', 'box_mask', 'mask', 'visible_box', 'field:area',
               'field:1-x']


def nested(depth=300):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def places(value, path=()):
    """List the paths of all values inside a value, to a depth that valid files do not reach."""
    found = [path]
    if len(path) > 20:
        return found
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@st.composite
def changed(draw, value, most=3):
    """Change a JSON value in a few places: replace, remove, repeat, rename, move."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, most))):
        paths = places(value)
        path = paths[draw(st.integers(0, len(paths) - 1))]
        odd = draw(st.sampled_from(ODD))
        odd = nested() if odd == 'nested' else copy.deepcopy(odd)
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return odd
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind, key = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'repeat', 'rename', 'move'])), path[-1]
        if kind == 'remove':
            del parent[key]
        elif kind == 'repeat' and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == 'rename' and isinstance(parent, dict):
            parent[draw(st.sampled_from(['', 'x' * 300, 'bbox', 'segmentation', 'score', 'ignore']))] = parent.pop(key)
        elif kind == 'move':
            other = value
            for step in paths[draw(st.integers(0, len(paths) - 1))]:
                other = other[step] if isinstance(other, list | dict) and (
                    step in other if isinstance(other, dict) else isinstance(step, int) and step < len(other)) else other
            parent[key] = copy.deepcopy(other)
        else:
            parent[key] = odd
    return value


@st.composite
def spoiled(draw, content):
    """Change the bytes of a file, or leave them."""
    kind = draw(st.sampled_from(['none'] * 6 + ['cut', 'flip', 'insert', 'gzip', 'gzip cut', 'bom', 'utf-16', 'empty', 'random',
                                                'twice']))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    if kind == 'cut':
        return content[:place]
    if kind == 'flip' and content:
        return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1:]
    if kind == 'insert':
        return content[:place] + draw(st.binary(max_size=9)) + content[place:]
    if kind.startswith('gzip'):
        packed = gzip.compress(content, mtime=0)
        return packed[:len(packed) * 2 // 3] if kind.endswith('cut') else packed
    other = {'bom': b'\xef\xbb\xbf' + content, 'utf-16': content.decode('latin1').encode('utf-16'), 'empty': b'',
             'twice': content * 2}
    return draw(st.binary(max_size=200)) if kind == 'random' else other.get(kind, content)


def as_json(value):
    text = json.dumps(value)
    return text.encode()


def example(kind, tool, arguments, files, compared=None):
    return {'kind': kind, 'tool': tool, 'arguments': [str(text) for text in arguments], 'compare': compared,
            'files': {name: base64.b64encode(content).decode() for name, content in files.items()}}


@st.composite
def options(draw):
    found = ['--definition', draw(st.sampled_from(DEFINITIONS))] if draw(st.integers(0, 2)) == 0 else []
    found += [flag for flag in ('--cumulative', '--same-category') if draw(st.integers(0, 4)) == 0]
    found += ['--unit', 'instance'] if draw(st.integers(0, 3)) == 0 else []
    return found


EVALUATED = ['--replicates', '0', '--out', '{folder}/out']


@st.composite
def coco(draw):
    """Annotations and results in COCO's layout, for eval, stats, annotate and browse."""
    data, found = draw(cases(draw(st.sampled_from(['bbox', 'bbox', 'segm']))))
    for number, image in enumerate(data['images']):
        image['file_name'] = f'{number}.png'
    which = draw(st.sampled_from(['truth', 'found', 'none', 'both']))
    data = draw(changed(data)) if which in ('truth', 'both') else data
    found = draw(changed(found)) if which in ('found', 'both') else found
    files = {'truth.json': as_json(data), 'found.json': as_json(found)}
    if which != 'none':
        name = 'truth.json' if which == 'truth' else 'found.json'
        files[name] = draw(spoiled(files[name]))
    tool = draw(st.sampled_from(['eval'] * 6 + ['stats', 'annotate', 'browse']))
    if tool == 'eval':
        more = draw(st.sampled_from([[]] * 8 + [
            ['--skip-invalid'], ['--box-format', 'xyxy'], ['--class-agnostic'], ['--protocol', 'lvis'],
            ['--ignore-key', 'ignore'], ['--drop-duplicates'], ['--swap-sizes'],
            ['--only-images-with-results'], ['--category-offset', '1']]))
        arguments = ['{folder}/truth.json', '{folder}/found.json', *EVALUATED[:2], *draw(options()), *more]
        if which != 'none' and draw(st.integers(0, 19)) == 0:  # seldom, as a page is drawn where the files are valid
            arguments += EVALUATED[2:]
        return example('coco', tool, arguments, files, ['truth.json', 'found.json'])
    if tool == 'browse':
        return example('browse', tool, ['{folder}/truth.json', '{folder}', '--out', '{folder}/new', '--bucket', '0', '1'], files)
    more = ['--out', '{folder}/out'] if tool == 'annotate' else []
    return example(tool, tool, ['{folder}/truth.json', *draw(options()), *more], {'truth.json': files['truth.json']})


TRUTH = dict(images=[dict(id=1, height=130, width=170, file_name='1.png'), dict(id=2, height=130, width=170, file_name='2.png')],
             categories=[dict(id=1, name='a'), dict(id=5, name='b')], annotations=[
                 dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 20, 20], area=400, iscrowd=0),
                 dict(id=2, image_id=2, category_id=5, bbox=[5, 5, 30, 20], area=600, iscrowd=0)])


def tensors(value):
    """Turn lists marked by '!f' and '!i' into tensors and arrays, where they can be."""
    if isinstance(value, dict):
        return {key: tensors(item) for key, item in value.items()}
    if isinstance(value, list) and value and value[0] in ('!f', '!i', '!a'):
        try:
            made = np.asarray(value[1:], dtype=np.float32 if value[0] == '!f' else None)
            return made if value[0] == '!a' else torch.from_numpy(made)
        except (ValueError, TypeError, OverflowError):
            return value[1:]
    return [tensors(item) for item in value] if isinstance(value, list) else value


@st.composite
def dumps(draw):
    """Predictions of mmdet as a pickle, and of torch as a torch file."""
    image = dict(pred_instances=dict(bboxes=['!f', [0., 0., 20., 20.], [5., 5., 30., 30.]], scores=['!f', .9, .5],
                                     labels=['!i', 0, 1]))
    value = tensors(draw(changed([dict(img_id=1, **image), dict(img_id=2, **copy.deepcopy(image))], 2)))
    file = io.BytesIO()
    name = draw(st.sampled_from(['found.pkl', 'found.PKL', 'found.pth', 'old.pth', 'found.json']))
    try:
        if name.endswith('pth'):
            torch.save(value, file, _use_new_zipfile_serialization=name == 'found.pth')
        else:
            pickle.dump(value, file, draw(st.integers(0, 5)))
    except RecursionError:
        file.write(b'\x80\x04')
    content = draw(spoiled(file.getvalue()))
    return example('dump', 'eval', ['{folder}/truth.json', f'{{folder}}/{name}', *EVALUATED[:2]],
                   {'truth.json': as_json(TRUTH), name: content})


#: Other layouts: their files, and which of them is changed.
ODGT = [dict(ID='a', gtboxes=[dict(fbox=[0, 0, 20, 20], vbox=[0, 0, 9, 9], tag='person', extra=dict(ignore=0))]),
        dict(ID='b', gtboxes=[dict(fbox=[5, 5, 20, 20], tag='mask')])]
MIDDLE = dict(metainfo=dict(classes=['a', 'b']), data_list=[dict(img_path='1.png', height=130, width=170, img_id=1, instances=[
    dict(bbox=[0, 0, 20, 20], bbox_label=0, ignore_flag=0)])])
STUDIO = [dict(id=1, data=dict(image='1.png'), annotations=[dict(result=[dict(
    original_width=170, original_height=130, value=dict(x=1, y=1, width=20, height=20, rotation=0, rectanglelabels=['a']))])])]
DATUMARO = dict(categories=dict(label=dict(labels=[dict(name='a')])), items=[
    dict(id='1', image=dict(path='1.png', size=[130, 170]), annotations=[
        dict(type='bbox', label_id=0, bbox=[0, 0, 20, 20]), dict(type='polygon', label_id=0, points=[0, 0, 9, 0, 9, 9])])])
PICTURE = b'P5 17 13 255 ' + bytes(17 * 13)
VISDRONE = b'1,1,20,20,1,1,0,0\n2,2,9,9,0,0,0,0\n3,3,9,9,1,4,1,2\n'
OPEN_IMAGES = (b'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n'
               b'1,xclick,/m/a,1,0.1,0.9,0.2,0.8,0,0,0,0,0\n1,xclick,/m/b,1,0.1,0.4,0.2,0.8,1,0,1,0,0\n')
CVAT = b'''<?xml version="1.0"?><annotations><meta><task><labels><label><name>a</name></label></labels></task></meta>
<image id="0" name="1.png" width="170" height="130"><box label="a" xtl="0" ytl="0" xbr="20" ybr="20" occluded="1"/>
<polygon label="a" points="0,0;9,0;9,9"/></image></annotations>'''
VOC = b'''<annotation><filename>1.jpg</filename><size><width>170</width><height>130</height></size><object><name>a</name>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>'''


@st.composite
def edited(draw, content):
    """Replace a number or a word of a text."""
    words = content.split(b'"') if b'"' in content else content.split(b'>')
    mark = b'"' if b'"' in content else b'>'
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(words) - 1))
        words[place] = draw(st.sampled_from([b'', b'x', b'-1', b'nan', b'1e400', b'9' * 400, b'0', b'inf', b'1,2', b'&amp;',
                                             b'<a>' * 2000]))
    return mark.join(words)


@st.composite
def layouts(draw):
    """Annotations of other layouts."""
    kind = draw(st.sampled_from(['odgt', 'middle', 'studio', 'datumaro', 'cvat', 'voc', 'yolo', 'visdrone', 'open_images']))
    files = {'found.json': as_json([dict(image_id=1, category_id=1, bbox=[0, 0, 20, 20], score=.5)])}
    name = {'odgt': 'truth.odgt', 'cvat': 'truth.xml'}.get(kind, 'truth.json')
    if kind == 'voc':
        name, files['voc/Annotations/1.xml'] = 'voc', draw(spoiled(draw(edited(VOC))))
    elif kind == 'yolo':
        text = draw(edited(b'"0" "0.5" "0.5" "0.2" "0.3"')).replace(b'"', b'')
        name, files['yolo/labels/1.txt'], files['yolo/images/1.png'] = 'yolo', draw(spoiled(text)), PICTURE
        files['yolo/data.yaml'] = draw(spoiled(b'names: [a, b]'))
    elif kind == 'visdrone':
        text = draw(edited(VISDRONE.replace(b',', b'","'))).replace(b'"', b'')
        name, files['drone/annotations/1.txt'], files['drone/images/1.png'] = 'drone', draw(spoiled(text)), PICTURE
    elif kind == 'open_images':
        text = draw(edited(OPEN_IMAGES.replace(b',', b'","'))).replace(b'"', b'')
        name, files['boxes.csv'], files['pictures/1.png'] = 'boxes.csv', draw(spoiled(text)), PICTURE
        arguments = ['{folder}/boxes.csv', '{folder}/found.json', '--images', '{folder}/pictures', *EVALUATED[:2]]
        return example(kind, 'eval', arguments, files)
    elif kind == 'odgt':
        value = draw(changed(ODGT))
        lines = b'\n'.join(map(as_json, value)) if isinstance(value, list) else as_json(value)
        files[name] = draw(spoiled(lines if draw(st.booleans()) else as_json(ODGT[0])))
    else:
        value = {'middle': MIDDLE, 'studio': STUDIO, 'datumaro': DATUMARO}.get(kind)
        files[name] = draw(spoiled(draw(edited(CVAT)) if kind == 'cvat' else as_json(draw(changed(value)))))
    tool = draw(st.sampled_from(['eval', 'stats', 'annotate']))
    arguments = {'eval': ['{folder}/found.json', *EVALUATED[:2]], 'stats': [], 'annotate': ['--out', '{folder}/out']}[tool]
    return example(kind, tool, [f'{{folder}}/{name}', *arguments], files)


@st.composite
def results(draw):
    """Results of other layouts."""
    name, content = draw(st.sampled_from([
        ('comp4_det_val_a.txt', b'1 0.5 1 1 20 20\n2 0.25 5 5 30 30\n'), ('yolo/labels/1.txt', b'0 0.5 0.5 0.2 0.3 0.9\n'),
        ('drone/1.txt', b'1,1,20,20,0.9,1,-1,-1\n'),
        ('found.jsonl', b'{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}\n' * 2),
        ('flat.json', b'{"image_ids": [1, 1], "boxes": [[0, 0, 9, 9], [1, 1, 9, 9]], "scores": [0.5, 0.4], "labels": [0, 1]}'),
        ('by_image.json', b'{"1": {"boxes": [[0, 0, 9, 9]], "scores": [0.5], "labels": [0]}}'),
        ('pipeline.json', b'{"1": [{"score": 0.5, "label": "a", "box": {"xmin": 0, "ymin": 0, "xmax": 9, "ymax": 9}}]}')]))
    if name.endswith('.json'):
        content = as_json(draw(changed(json.loads(content))))
    elif name.endswith('.txt'):
        mark = b',' if b',' in content else b' '
        content = draw(edited(b'"' + content.replace(mark, b'"' + mark + b'"') + b'"')).replace(b'"', b'')
    return example('results', 'eval', ['{folder}/truth.json', f'{{folder}}/{name.split("/")[0]}', *EVALUATED[:2]],
                   {'truth.json': as_json(TRUTH), name: draw(spoiled(content))})


@cache
def saved():
    """Return the files of an evaluation."""
    from mmtied.evaluation import Bootstrap, evaluate
    from mmtied.evaluation.records import write_records
    from mmtied.evaluation.reporting.files import write_report
    found = [dict(image_id=image, category_id=category, bbox=[0, 0, 20, 20], score=.5) for image in (1, 2) for category in (1, 5)]
    result = evaluate(TRUTH, found, bootstrap=Bootstrap(10))
    report = {**result.report, 'run': 'abc'}
    with TemporaryDirectory() as name:
        write_records(replace(result.saved_run(), run='abc'), name)
        write_report(report, name)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


@st.composite
def reports(draw):
    """Folders of an evaluation, for report and compare."""
    good, files = saved(), {}
    which = draw(st.sampled_from(['report.json', 'records.npz', 'buckets.csv']))
    content = good[which]
    if which == 'report.json':
        content = as_json(draw(changed(json.loads(content))))
    elif which == 'records.npz':
        with np.load(io.BytesIO(content)) as arrays:
            arrays = dict(arrays)
        name = draw(st.sampled_from(sorted(arrays)))
        kind = draw(st.sampled_from(['header', 'dtype', 'cut', 'negative', 'drop', 'large', 'none']))
        if kind == 'header' or name == 'header':
            arrays['header'] = np.array(json.dumps(draw(changed(json.loads(str(arrays['header']))))))
        elif kind == 'dtype':
            arrays[name] = arrays[name].astype(draw(st.sampled_from(['f4', 'i1', 'u8', 'U3', 'c8'])))
        elif kind == 'cut':
            arrays[name] = arrays[name][:-1]
        elif kind in ('negative', 'large') and arrays[name].size:
            arrays[name] = arrays[name].copy()
            with np.errstate(all='ignore'):
                arrays[name].flat[0] = arrays[name].dtype.type(-1 if kind == 'negative' else 120)
        elif kind == 'drop':
            del arrays[name]
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        content = file.getvalue()
    for name in ('report.json', 'records.npz', 'buckets.csv'):
        files[f'a/{name}'] = good[name]
        if name == which or draw(st.integers(0, 3)) or which == 'buckets.csv':
            files[f'b/{name}'] = draw(spoiled(content)) if name == which else good[name]
    if draw(st.integers(0, 3)):
        return example('compare', 'compare', ['{folder}/a', '{folder}/b', '--replicates', '20'], files)
    return example('report', 'report', ['{folder}/page.html', '{folder}/b'], files)


@st.composite
def checkpoints(draw):
    """Checkpoints of a classifier, for convert."""
    value = dict(meta=dict(epoch=1, classes=['a']), state_dict={'backbone.a.weight': ['!f', 1., 2.], 'backbone.b': ['!f', 1.],
                                                                'head.fc.weight': ['!f', 3.]}, optimizer=dict(state={'0': 1}))
    file = io.BytesIO()
    try:
        torch.save(tensors(draw(changed(value, 2))), file, _use_new_zipfile_serialization=draw(st.booleans()))
    except RecursionError:
        file.write(b'PK')
    return example('checkpoint', 'convert', ['{folder}/in.pth', '{folder}/new.pth'], {'in.pth': draw(spoiled(file.getvalue()))})


def examples():
    """Return all kinds of examples, those of COCO's layout most often."""
    return st.one_of(coco(), coco(), coco(), dumps(), layouts(), results(), reports(), checkpoints())
