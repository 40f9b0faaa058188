"""Writers of one small data set, and of results on it, in the layouts of docs/formats.md."""

import gzip
import json
import pickle

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_api

#: Two images of 200 x 100 pixels, and boxes xywh of two classes.
NAMES, STEMS, WIDTH, HEIGHT = ['cat', 'dog'], ['img_a', 'img_b'], 200, 100
BOXES = [('img_a', 'cat', [10, 20, 40, 30]), ('img_a', 'dog', [30, 20, 40, 30]), ('img_b', 'dog', [100, 50, 60, 40])]
COCO = dict(images=[dict(id=number, file_name=f'{stem}.jpg', width=WIDTH, height=HEIGHT) for number, stem in enumerate(STEMS, 1)],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
            annotations=[dict(id=number, image_id=STEMS.index(stem) + 1, category_id=NAMES.index(name) + 1, bbox=box,
                              area=box[2] * box[3], iscrowd=0) for number, (stem, name, box) in enumerate(BOXES, 1)])
RESULTS = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.9 - .1 * number)
           for number, entry in enumerate(COCO['annotations'])]


def append(path, text):
    with path.open('a') as file:
        file.write(text)


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def shares(box):
    return [(box[0] + box[2] / 2) / WIDTH, (box[1] + box[3] / 2) / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT]


def of_image(stem):
    return [(name, box) for own, name, box in BOXES if own == stem]


def pictures(folder):
    folder.mkdir(parents=True)
    for stem in STEMS:
        Image.new('RGB', (WIDTH, HEIGHT)).save(folder / f'{stem}.jpg')


def write_coco(folder):
    (folder / 'a.json').write_text(json.dumps(COCO))
    return folder / 'a.json'


def write_gzip(folder):
    (folder / 'a.json.gz').write_bytes(gzip.compress(json.dumps(COCO).encode()))
    return folder / 'a.json.gz'


def write_bare(folder):
    """Label Studio's and other exports: no area, iscrowd null, empty segmentation of any kind, floats for integers."""
    data = json.loads(json.dumps(COCO))
    for entry, nothing in zip(data['annotations'], ([], {}, None), strict=True):
        del entry['area']
        entry |= dict(iscrowd=None, segmentation=nothing, image_id=float(entry['image_id']),
                      category_id=float(entry['category_id']))
    data['images'][0]['height'] = 100.0
    return write_json(folder, data)


def write_json(folder, data, encoding='utf-8'):
    (folder / 'a.json').write_text(json.dumps(data), encoding=encoding)
    return folder / 'a.json'


def write_middle(folder):
    images = [dict(img_path=f'{stem}.jpg', img_id=stem, height=HEIGHT, width=WIDTH, instances=[
        dict(bbox=corners(box), bbox_label=NAMES.index(name), ignore_flag=0) for name, box in of_image(stem)]) for stem in STEMS]
    return write_json(folder, dict(metainfo=dict(classes=NAMES), data_list=images))


def write_voc(folder):
    (folder / 'Annotations').mkdir()
    for stem in STEMS:
        objects = ''.join(f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
                          f'<xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox></object>' for name, (x, y, w,
                                                                                                           h) in of_image(stem))
        (folder / f'Annotations/{stem}.xml').write_text(
            f'<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}'
            '</annotation>')
    return folder


def write_voc_split(folder):
    write_voc(folder)
    (folder / 'ImageSets/Main').mkdir(parents=True)
    (folder / 'ImageSets/Main/test.txt').write_text('\n'.join(STEMS))
    return folder / 'ImageSets/Main/test.txt'


def write_yolo(folder):
    pictures(folder / 'images')
    (folder / 'labels').mkdir()
    for stem in STEMS:
        lines = [f'{NAMES.index(name)} ' + ' '.join(map(repr, shares(box))) for name, box in of_image(stem)]
        (folder / f'labels/{stem}.txt').write_text('\n'.join(lines) + '\n')
    (folder / 'data.yaml').write_text('names: [cat, dog]\nnc: 2\n')
    return folder


def write_cvat(folder):
    images = ''.join(f'<image id="{number}" name="{stem}.jpg" width="{WIDTH}" height="{HEIGHT}">' + ''.join(
        f'<box label="{name}" occluded="0" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" z_order="0"></box>'
        for name, (x, y, w, h) in of_image(stem)) + '</image>' for number, stem in enumerate(STEMS))
    (folder / 'annotations.xml').write_text(f'<?xml version="1.0"?><annotations><version>1.1</version>{images}</annotations>')
    return folder / 'annotations.xml'


def write_datumaro(folder):
    items = [dict(id=stem, image=dict(path=f'{stem}.jpg', size=[HEIGHT, WIDTH]), annotations=[
        dict(id=0, type='bbox', label_id=NAMES.index(name), bbox=box, attributes={}) for name, box in of_image(stem)])
             for stem in STEMS]
    labels = [dict(name=name, parent='', attributes=[]) for name in NAMES]
    return write_json(folder, dict(info={}, categories=dict(label=dict(labels=labels)), items=items))


def write_label_studio(folder):
    tasks = [dict(id=number, data=dict(image=f'/data/{stem}.jpg'), annotations=[dict(was_cancelled=False, result=[
        dict(type='rectanglelabels', original_width=WIDTH, original_height=HEIGHT, value=dict(
            x=100 * box[0] / WIDTH, y=100 * box[1] / HEIGHT, width=100 * box[2] / WIDTH, height=100 * box[3] / HEIGHT, rotation=0,
            rectanglelabels=[name])) for name, box in of_image(stem)])]) for number, stem in enumerate(STEMS, 7)]
    return write_json(folder, tasks)


ODGT = [{'ID': '273271,c9db000d5146c15', 'gtboxes': [
    {'tag': 'person', 'fbox': [10, 10, 40, 80], 'vbox': [10, 10, 40, 40], 'hbox': [20, 10, 10, 10], 'extra': {'box_id': 0,
                                                                                                              'occ': 1}},
    {'tag': 'person', 'fbox': [-20, 10, 60, 80], 'vbox': [0, 10, 40, 80], 'hbox': [0, 10, 9, 9], 'extra': {'ignore': 1}},
    {'tag': 'mask', 'fbox': [100, 0, 50, 50], 'vbox': [100, 0, 50, 50], 'hbox': [100, 0, 50, 50], 'extra': {'ignore': 1}}]}]


def by_image(**more):
    return [dict(image_id=number, boxes=torch.tensor([corners(entry['bbox']) for entry in RESULTS
                                                      if entry['image_id'] == number]).float(),
                 scores=torch.tensor([entry['score'] for entry in RESULTS if entry['image_id'] == number], dtype=torch.float64),
                 labels=torch.tensor([entry['category_id'] - 1 for entry in RESULTS if entry['image_id'] == number]), **more)
            for number in (1, 2)]


def write_lines(folder):
    (folder / 'r.jsonl').write_text('\n'.join(map(json.dumps, RESULTS)))
    return folder / 'r.jsonl'


def write_ultralytics(folder):
    """Ids are the stems of files, numbers where those are."""
    return write_json(folder, [dict(entry, image_id=STEMS[entry['image_id'] - 1], file_name=f'{STEMS[entry["image_id"] - 1]}.jpg')
                               for entry in RESULTS])


def write_detectron2(folder):
    """Its category_id counts the sorted ids of categories from 0."""
    entries = [dict(image_id=number, instances=[dict(entry, category_id=entry['category_id'] - 1)
                                                for entry in RESULTS if entry['image_id'] == number]) for number in (1, 2)]
    torch.save(entries, folder / 'instances_predictions.pth')
    return folder / 'instances_predictions.pth'


def write_torch(folder):
    torch.save(by_image(), folder / 'r.pt')
    return folder / 'r.pt'


def write_packed_torch(folder):
    path = write_torch(folder)
    path.with_name('r.pt.gz').write_bytes(gzip.compress(path.read_bytes()))
    return path.with_name('r.pt.gz')


def write_flat(folder):
    entries = by_image()
    torch.save(dict(image_ids=torch.tensor([1, 1, 2]), **{key: torch.cat([entry[key] for entry in entries])
                                                          for key in ('boxes', 'scores', 'labels')}), folder / 'r.pt')
    return folder / 'r.pt'


def write_dump(folder):
    """mmdet's, with an image that the distributed sampler repeated."""
    entries = [dict(img_id=entry['image_id'], pred_instances=dict(bboxes=entry['boxes'], scores=entry['scores'],
                                                                  labels=entry['labels']))
               for entry in by_image()]
    (folder / 'r.pkl').write_bytes(pickle.dumps([*entries, entries[0]]))
    return folder / 'r.pkl'


def write_packed_dump(folder):
    path = write_dump(folder)
    path.with_name('r.pkl.gz').write_bytes(gzip.compress(path.read_bytes()))
    return path.with_name('r.pkl.gz')


def write_inferencer(folder):
    """Write predictions as mmdet's DetInferencer does: only the name of a file says which image they are of."""
    (folder / 'preds').mkdir()
    mask = mask_api.encode(np.ones((HEIGHT, WIDTH), dtype=np.uint8, order='F'))
    mask['counts'] = mask['counts'].decode()
    for entry, stem in zip(by_image(), STEMS, strict=True):
        (folder / f'preds/{stem}.json').write_text(json.dumps(dict(
            labels=entry['labels'].tolist(), scores=entry['scores'].tolist(), bboxes=entry['boxes'].tolist(),
            masks=[mask] * len(entry['scores']))))
    return folder


def write_utf16(folder):
    """Redirected by PowerShell."""
    return write_json(folder, RESULTS, encoding='utf-16')


def write_voc_results(folder):
    for name in NAMES:
        lines = [f'{STEMS[entry["image_id"] - 1]} {entry["score"]!r} ' + ' '.join(str(value + 1)
                                                                                  for value in corners(entry['bbox']))
                 for entry in RESULTS if NAMES[entry['category_id'] - 1] == name]
        (folder / f'comp4_det_test_{name}.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_yolo_results(folder):
    (folder / 'labels').mkdir()
    for number, stem in enumerate(STEMS, 1):
        lines = [' '.join(map(repr, (entry['category_id'] - 1, *shares(entry['bbox']), entry['score'])))
                 for entry in RESULTS if entry['image_id'] == number]
        (folder / f'labels/{stem}.txt').write_text('\n'.join(lines) + '\n')
    return folder / 'labels'


def hugging_face(folder):
    """Dicts of `post_process_object_detection`, collected by image id, as in torchvision's reference scripts."""
    return {entry.pop('image_id'): entry for entry in by_image()}


def pipeline_of_hugging_face(folder):
    return {number: [dict(score=entry['score'], label=NAMES[entry['category_id'] - 1],
                          box=dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), corners(entry['bbox']), strict=True)))
                     for entry in RESULTS if entry['image_id'] == number] for number in (1, 2)}


def text_labels(folder):
    """Dicts of `post_process_grounded_object_detection`, whose labels are texts."""
    return [{**entry, 'labels': None, 'text_labels': [NAMES[label] for label in entry['labels'].tolist()]}
            for entry in by_image()]
