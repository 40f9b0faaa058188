"""Detections simulated from annotations, and whole data sets generated from a seed."""

import numpy as np
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.rle import to_rle


def simulated(data, iou_type, seed=0, jitters=(.04, .15)):
    """Return jittered annotations: two for each, one in ten under another category, scores in hundredths."""
    rng = np.random.default_rng(seed)
    sizes = {image['id']: (image['height'], image['width']) for image in data['images']}
    categories = [category['id'] for category in data['categories']]
    results = []
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        for jitter in jitters:
            noise = rng.normal(size=4) * jitter
            score = float(np.round(np.clip(1 - 3 * jitter + rng.normal() * .2, .01, 1), 2))
            category = entry['category_id'] if rng.random() < .9 else int(rng.choice(categories))
            result = dict(image_id=entry['image_id'], category_id=category, score=score)
            if iou_type == 'bbox':
                moved = np.array([x + w * noise[0], y + h * noise[1], w * np.exp(noise[2]), h * np.exp(noise[3])])
                result['bbox'] = moved.tolist()
            else:
                height, width = sizes[entry['image_id']]
                code = to_rle(entry['segmentation'], height, width, 'here')
                mask = np.roll(mask_api.decode(code), (int(h * noise[0]), int(w * noise[1])), axis=(0, 1))
                rle = mask_api.encode(np.asfortranarray(mask))
                result['segmentation'] = {'size': [height, width], 'counts': rle['counts'].decode()}
            results.append(result)
    return results


def many(seed=0, num_images=40, per_image=30, num_categories=3):
    """Return enough true positives in a category to fill many blocks."""
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=number + 1, height=100, width=100) for number in range(num_images)],
                categories=[dict(id=number + 1, name=str(number)) for number in range(num_categories)], annotations=[])
    results = []
    for image in data['images']:
        for _ in range(per_image):
            box = [float(value) for value in (*rng.uniform(0, 80, 2), *rng.uniform(5, 20, 2))]
            category = int(rng.choice(num_categories, p=[.9, .05, .05])) + 1
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=image['id'], category_id=category, bbox=box,
                                            area=box[2] * box[3], iscrowd=int(rng.random() < .02)))
            for score in rng.random(2):
                moved = [value + float(rng.normal()) for value in box]
                results.append(dict(image_id=image['id'], category_id=category, bbox=moved, score=round(float(score), 3)))
    return data, results
