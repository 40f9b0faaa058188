#!/usr/bin/env python
"""Make a data set of occluded shapes, train a tied Mask R-CNN on it, and print its AP by occlusion, in minutes on a CPU."""

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

CONFIG = 'configs/demo/mask_rcnn_tiedr50_demo.py'
#: Threads of torch, unless OMP_NUM_THREADS says otherwise. Threads wait for each other, so that on a busy computer of 2 cores two
#: of them took 6 to 10 s a step, and one 1.5 s.
THREADS = 1
NUM_IMAGES, NUM_VAL_IMAGES, SEED = 500, 100, 0
ANNOTATIONS = 'annotations/instances_val2017.json'
LOG = 'demo.log'


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='where everything goes')
    parser.add_argument('--data', type=Path, default=Path('data/occluded_shapes'), help='the data set; made if missing')
    return parser.parse_args()


def check_environment() -> None:
    """Raise an ImportError for anything that the demo needs and does not find."""
    from mmtied.compat import check_mmcv, require
    require(['mmengine', 'mmcv', 'mmdet', 'cv2', 'matplotlib', 'jinja2'], 'The demo')
    check_mmcv('The demo', 'mmdet')


def make_data(folder: Path) -> None:
    """Make the data set unless it exists."""
    if (folder / ANNOTATIONS).exists():
        print(f'1/3 data: {folder}, which is there already, with {len(list(folder.glob("train2017/*")))} training images')
        return
    from mmtied.datasets import make_occluded_shapes
    print(f'1/3 data: {NUM_IMAGES} training and {NUM_VAL_IMAGES} validation images of occluded shapes into {folder}')
    make_occluded_shapes(folder, num_images=NUM_IMAGES, num_val_images=NUM_VAL_IMAGES, seed=SEED, progress=True)


def start_clean(work_dir: Path) -> None:
    """Create the folder, and replace the results of an earlier demo.

    Raises:
        ValueError: The folder is not empty and not from an earlier demo.
    """
    if work_dir.exists() and any(work_dir.iterdir()):
        if not (work_dir / LOG).exists():
            raise ValueError(f'--work-dir {work_dir} is not empty and not from an earlier demo; name another folder')
        print(f'    {work_dir} of an earlier demo is replaced')
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)


def train(args: argparse.Namespace):
    """Train, with mmengine's log in a file and a progress line on the terminal, and return the Runner."""
    import torch

    from mmtied.launch import config, runner
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(THREADS)
    cfg = config.load_config(str(Path(__file__).parents[1] / CONFIG), {'data_root': str(args.data)})
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(args.data)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(args.data / ANNOTATIONS)
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
    """Return a hook that updates one line of the terminal, or prints a line every 25 steps where there is no terminal."""
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


def draw_examples(runner, data: Path, work_dir: Path) -> Path:
    """Draw validation images from low to high occlusion with their detections, and return the path of the picture."""
    from mmtied.analysis.image_choice import Choice
    from mmtied.evaluation import read_ground_truth
    from mmtied.evaluation.buckets import bucket_between
    from mmtied.launch.networks import Network
    from mmtied.launch.samples import annotated, from_network, sample_rows
    from mmtied.plotting import draw_grid, write_figure
    images, ground_truth = data / 'val2017', read_ground_truth(data / ANNOTATIONS)
    network = Network('prediction', runner.cfg, runner.model, tuple(runner.val_dataloader.dataset.metainfo['classes']))
    rows = {'ground truth': annotated(ground_truth, masks=True),
            network.name: from_network(ground_truth, images, network, .4)}
    path = work_dir / 'examples.png'
    write_figure(draw_grid(sample_rows(ground_truth, images, rows, Choice(bucket_between(0, 1), 6))), path)
    return path


def main() -> None:
    """Run the demo."""
    args = parse_args()
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors
    with user_errors(after_interrupt=lambda: 'the data set is kept if it was complete; start again for the rest'):
        start = time.time()
        check_environment()
        check_can_write(args.data, '--data', folder=True)
        check_can_write(args.work_dir, '--work-dir', folder=True)
        make_data(args.data)
        start_clean(args.work_dir)
        runner = train(args)
        picture = draw_examples(runner, args.data, args.work_dir)

        from mmtied.evaluation.reporting.files import read_report
        from mmtied.evaluation.reporting.tables import format_tables
        print(f'\n{format_tables(read_report(args.work_dir / "occlusion/report.json"))}\n')
        print('files:')
        for path in [*sorted((args.work_dir / 'occlusion').iterdir()), picture, *sorted(args.work_dir.glob('epoch_*.pth'))]:
            print(f'    {path}')
        print(f'done in {(time.time() - start) / 60:.1f} minutes')


if __name__ == '__main__':
    main()
