"""How far a resumed training is from a straight one, without and with `ExactResumeHook`: the demo's detector on small images.

``python benchmarks/resume_drift.py --csv docs/benchmarks/resume_drift.csv`` measures it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from reporting import add_options, apply_options, report

from mmtied.cli import user_errors
from mmtied.datasets import make_occluded_shapes
from mmtied.evaluation.reporting.files import read_report
from mmtied.launch.checkpoints import read_state_dict

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=80)
    parser.add_argument('--epochs', type=int, default=3, help='resumed after the first (3)')
    add_options(parser, repeats=1)
    args = parser.parse_args()
    with user_errors(), tempfile.TemporaryDirectory() as folder:
        apply_options(args)
        make_occluded_shapes(Path(folder, 'shapes'), num_images=args.images, num_val_images=args.images // 4, seed=1, size=96,
                             objects=(2, 4), workers=1)
        title = (f'The demo on {args.images} images of 96 x 96, {args.epochs} epochs, resumed after the first: largest absolute '
                 'differences from a straight run.')
        report(args, title, rows(args, Path(folder)), ('torch', 'mmtied'))


def rows(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Yield what differs: twice the same run, a resumed one, and the two with the hook."""
    straight = {}
    for name, hook, resume in (('straight', False, False), ('straight again', False, False), ('resumed', False, True),
                               ('straight', True, False), ('resumed', True, True)):
        work = folder / f'{name}_{hook}'
        if resume:
            train(folder, work, args.epochs, hook, '--cfg-options', 'train_cfg.max_epochs=1')
        train(folder, work, args.epochs, hook, *(['--resume'] if resume else []))
        weights = read_state_dict(work / f'epoch_{args.epochs}.pth')
        ap = read_report(work / 'occlusion/report.json')['bbox']['all']['AP']
        first, first_ap = straight.setdefault(hook, (weights, ap))
        if name != 'straight':
            parts = {'weights': [key for key in weights if key.endswith(('weight', 'bias'))],
                     'BatchNorm statistics': [key for key in weights if 'running' in key]}
            largest = {part: max(float((weights[key] - first[key]).abs().max()) for key in keys) for part, keys in parts.items()}
            yield {'run': name, 'ExactResumeHook': 'yes' if hook else 'no',
                   **{part: f'{value:.2g}' for part, value in largest.items()},
                   'weights, relative': f'{distance(weights, first, parts["weights"]):.2g}',
                   'AP in points': f'{100 * (ap - first_ap):.2g}'}


def distance(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor], keys: list[str]) -> float:
    """Return the norm of the difference over the norm of the weights."""
    difference = sum((weights[key] - others[key]).square().sum() for key in keys)
    return float((difference / sum(others[key].square().sum() for key in keys)).sqrt())


def train(folder: Path, work: Path, epochs: int, hook: bool, *more: str) -> None:
    """Train in a process of its own."""
    shapes = folder / 'shapes'
    config = folder / 'config.py'
    config.write_text(f'_base_ = {str(ROOT / "configs/demo/mask_rcnn_tiedr50_demo.py")!r}\n'
                      f'train_cfg = dict(max_epochs={epochs}, val_interval=1)\nrandomness = dict(seed=0)\n'
                      + ("default_hooks = dict(resume=dict(type='mmtied.ExactResumeHook'))\n" if hook else ''))
    options = [f'{split}_dataloader.dataset.data_root={shapes}/' for split in ('train', 'val', 'test')]
    options += [f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')]
    done = subprocess.run([sys.executable, ROOT / 'tools/train.py', config, '--work-dir', work, '--cfg-options', *options, *more],
                          capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f'training ended with exit code {done.returncode}: {done.stderr[-300:]}')


if __name__ == '__main__':
    main()
