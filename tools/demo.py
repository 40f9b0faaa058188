#!/usr/bin/env python
"""Generate occluded shapes, train a tied Mask R-CNN on them, and print its AP by occlusion; takes minutes on a CPU."""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFIG = 'configs/demo/mask_rcnn_tiedr50_demo.py'
#: Threads of torch unless OMP_NUM_THREADS is set. On a busy 2-core machine a step took 1.5 s with one thread, 6 to 10 s with two.
THREADS = 1
NUM_IMAGES, NUM_VAL_IMAGES, SEED = 500, 100, 0
LOG = 'demo.log'


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='output folder (default: %(default)s)')
    parser.add_argument('--data', type=Path, default=Path('data/occluded_shapes'),
                        help='folder of the data set, generated if missing (default: %(default)s)')
    return parser.parse_args()


def check_environment() -> None:
    """Raise an ImportError if a package is missing."""
    from mmtied.compat import check_mmcv, require
    require(['mmengine', 'mmcv', 'mmdet', 'cv2', 'matplotlib', 'jinja2'], 'The demo')
    check_mmcv('The demo', 'mmdet')


def make_data(folder: Path) -> None:
    """Generate the data set unless it exists."""
    if (folder / 'annotations/instances_val2017.json').exists():
        print(f'1/3 data: {folder} exists, with {len(list(folder.glob("train2017/*")))} training images')
        return
    from mmtied.datasets import make_occluded_shapes
    print(f'1/3 data: {NUM_IMAGES} training and {NUM_VAL_IMAGES} validation images of occluded shapes, in {folder}')
    make_occluded_shapes(folder, num_images=NUM_IMAGES, num_val_images=NUM_VAL_IMAGES, seed=SEED, progress=True)


def start_clean(work_dir: Path) -> None:
    """Create the work_dir, replacing the results of an earlier demo.

    Raises:
        ValueError: The folder is not empty and not from an earlier demo.
    """
    if work_dir.exists() and any(work_dir.iterdir()):
        if not (work_dir / LOG).exists():
            raise ValueError(f'--work-dir {work_dir} is not empty and not from an earlier demo; name another folder')
        print(f'    replacing the earlier demo in {work_dir}')
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)


def train(args: argparse.Namespace):
    """Train, with mmengine's log in a file and a progress line on the terminal; return the Runner."""
    import torch

    from mmtied.launch import config, runner
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(THREADS)
    cfg = config.load_config(str(Path(__file__).parents[1] / CONFIG), {'data_root': str(args.data)})
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(args.data)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(args.data / 'annotations/instances_val2017.json')
    cfg.work_dir = str(args.work_dir)
    runner.check_data_files(cfg, 'train', 'val')
    print(f'2/3 training: {CONFIG}, from scratch, {cfg.train_cfg.max_epochs} epochs; the full log is {args.work_dir / LOG}')
    with ((args.work_dir / LOG).open('w', encoding='utf-8') as log, contextlib.redirect_stdout(log),
          contextlib.redirect_stderr(log)):
        running = runner.build_runner(cfg)
        running.register_hook(progress_hook(sys.__stdout__))
        running.train()
    return running


def progress_hook(terminal):
    """Return a hook that updates one line of a terminal, or prints a line every 25 steps to anything else."""
    from mmengine.hooks import Hook

    class Progress(Hook):
        priority = 'VERY_LOW'

        def before_train(self, runner) -> None:
            self.start, self.losses = time.time(), []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            self.losses.append(float(outputs['loss']))
            done, total = runner.iter + 1, runner.max_iters
            minutes, seconds = divmod(round((time.time() - self.start) / done * (total - done)), 60)
            recent = self.losses[-20:]
            line = f'    step {done}/{total}   loss {sum(recent) / len(recent):.2f}   {minutes}:{seconds:02} left'
            if terminal.isatty():
                terminal.write(f'\r{line}   ')
            elif done % 25 == 0 or done == total:
                terminal.write(f'{line}\n')
            terminal.flush()

        def before_val(self, runner) -> None:
            terminal.write('\n' * terminal.isatty() + '3/3 evaluation by occlusion\n')
            terminal.flush()

    return Progress()


class Instances(NamedTuple):
    """Instances of one image, true or predicted.

    Attributes:
        masks: Shape (N, H, W) bool.
        labels: Index of each instance's category, shape (N,).
        scores: Shape (N,), or None for ground truth.
    """

    masks: 'np.ndarray'
    labels: 'np.ndarray'
    scores: 'np.ndarray | None' = None


class Example(NamedTuple):
    """One column of the gallery.

    Attributes:
        title: Text above the image, for example ``'r = 0.85'``.
        image: RGB, shape (H, W, 3) uint8.
        truth: Its ground truth.
        predictions: Its predictions.
    """

    title: str
    image: 'np.ndarray'
    truth: Instances
    predictions: Instances


def draw_gallery(examples: Sequence[Example], categories: Sequence[str]) -> 'Figure':
    """Draw a column for each example, colored by category.

    Args:
        examples: At least one.
        categories: Names of the categories, by label.
    """
    import matplotlib
    from matplotlib.patches import Patch

    from mmtied.plotting import new_figure, plain_label

    colors = matplotlib.colormaps['tab10'].colors
    figure = new_figure(1.62 * len(examples) + .4, 3.75)
    rows = figure.subplots(2, len(examples), squeeze=False)
    for column, example in zip(rows.T, examples, strict=True):
        column[0].set_title(plain_label(example.title), fontsize=9)
        for axes, instances in zip(column, (example.truth, example.predictions), strict=True):
            _draw(axes, example.image, instances, colors)
    for axes, name in zip(rows[:, 0], ('ground truth', 'prediction'), strict=True):
        axes.set_ylabel(name, fontsize=9)
    patches = [Patch(color=colors[label % len(colors)], label=plain_label(name)) for label, name in enumerate(categories)]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(categories), frameon=False, fontsize=8)
    return figure


def _draw(axes: 'Axes', image: 'np.ndarray', instances: Instances, colors: Sequence[tuple[float, float, float]]) -> None:
    """Show a dimmed image with tinted and outlined masks, the most confident ones on top."""
    import numpy as np

    from mmtied.plotting import hide_spines

    axes.imshow(.45 * image / 255 + .55)
    order = range(len(instances.labels)) if instances.scores is None else np.argsort(instances.scores)
    for index in order:
        mask, color = instances.masks[index], colors[instances.labels[index] % len(colors)]
        axes.imshow(np.where(mask[..., None], (*color, .5), 0.))
        if mask.any():
            axes.contour(np.pad(mask, 1), levels=[.5], colors=[color], linewidths=1.1,
                         extent=(-1.5, mask.shape[1] + .5, -1.5, mask.shape[0] + .5))
    axes.set(xlim=(-.5, image.shape[1] - .5), ylim=(image.shape[0] - .5, -.5), xticks=[], yticks=[])
    hide_spines(axes, 'top', 'right', 'bottom', 'left')


def draw_examples(runner, work_dir: Path, count: int = 6) -> Path:
    """Draw validation images from low to high occlusion with their detections; return the path of the picture."""
    import cv2
    import numpy as np
    from mmengine.dataset import pseudo_collate
    from pycocotools.coco import COCO

    from mmtied.atomic import atomic_path
    dataset = runner.val_loop.dataloader.dataset
    with contextlib.redirect_stdout(None):
        coco = COCO(dataset.ann_file)
    ratios = [coco.imgs[dataset.get_data_info(index)['img_id']]['occlusion_ratio'] for index in range(len(dataset))]
    examples = []
    for wanted in np.linspace(0, .85, count):
        index = int(np.argmin(np.abs(np.array(ratios) - wanted)))
        sample = runner.model.test_step(pseudo_collate([dataset[index]]))[0]
        annotations = coco.imgToAnns[sample.img_id]
        truth = Instances(np.array([coco.annToMask(a).astype(bool) for a in annotations]),
                          np.array([dataset.cat2label[a['category_id']] for a in annotations]))
        found = sample.pred_instances.detach().cpu()
        found = found[found.scores >= .4]
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        examples.append(Example(f'r = {ratios[index]:.2f}', image, truth,
                                Instances(found.masks.numpy(), found.labels.numpy(), found.scores.numpy())))
    path = work_dir / 'examples.png'
    with atomic_path(path) as temporary:
        draw_gallery(examples, dataset.metainfo['classes']).savefig(temporary)
    return path


def main() -> None:
    """Run the demo."""
    args = parse_args()
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors
    with user_errors(after_interrupt=lambda: 'a complete data set is kept; run the command again for the rest'):
        start = time.time()
        check_environment()
        check_can_write(args.data, '--data', folder=True)
        check_can_write(args.work_dir, '--work-dir', folder=True)
        make_data(args.data)
        start_clean(args.work_dir)
        runner = train(args)
        picture = draw_examples(runner, args.work_dir)

        from mmtied.evaluation.reporting.runs import read_report
        from mmtied.evaluation.reporting.tables import format_tables
        print(f'\n{format_tables(read_report(args.work_dir / "occlusion/report.json"))}\n')
        print('files:')
        for path in [*sorted((args.work_dir / 'occlusion').iterdir()), picture, *sorted(args.work_dir.glob('epoch_*.pth'))]:
            print(f'    {path}')
        print(f'done in {(time.time() - start) / 60:.1f} minutes')


if __name__ == '__main__':
    main()
