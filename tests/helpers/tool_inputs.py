"""Files that every tool can read."""

import json
from pathlib import Path

from PIL import Image

from mmtied.evaluation import evaluate
from tests.helpers.figures import blank_figures


def write_tool_inputs(folder: Path) -> None:
    """Write truth.json and found.json of two images, the images, and two evaluations in folders a and b."""
    boxes = [[5, 5, 40, 40], [25, 5, 40, 40]]
    data = dict(images=[dict(id=number, file_name=f'{number}.png', height=60, width=90) for number in range(2)],
                categories=[dict(id=1, name='a')], annotations=[
                    dict(id=2 * image + number, image_id=image, category_id=1, bbox=box, area=1600, iscrowd=0)
                    for image in range(2) for number, box in enumerate(boxes)])
    found = [dict(image_id=entry['image_id'], category_id=1, bbox=entry['bbox'], score=.5) for entry in data['annotations']]
    for name, value in (('truth', data), ('found', found)):
        (folder / f'{name}.json').write_text(json.dumps(value))
    (folder / 'images').mkdir()
    for number in range(2):
        Image.effect_noise((90, 60), 90).save(folder / f'images/{number}.png')
    with blank_figures():
        for name in 'ab':
            evaluate(data, found).save(folder / name)
