"""Measure the distance between a resumed and an uninterrupted training, without and with `ExactResumeHook`.

A thin TiedResNet-50 learns to classify generated images, which two workers shift randomly and cover with noise.

    python benchmarks/resume_drift.py --csv docs/benchmarks/resume_drift.csv
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from reporting import add_options, apply_options, report
from torch import Tensor, nn

from mmtied.backbones import TiedResNet
from mmtied.cli import user_errors

CLASSES, SIDE = 4, 32


class Images(torch.utils.data.Dataset):
    """Stripes with a direction per class, in random colors and at random places."""

    def __init__(self, number: int, augment: bool) -> None:
        self.number, self.augment = number, augment

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return an image and its label."""
        fixed = torch.Generator().manual_seed(index + 10**6 * self.augment)
        label = index % CLASSES
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing='ij')
        wave = torch.sin([rows, columns, rows + columns, rows - columns][label] * .7 + 6 * torch.rand((), generator=fixed))
        image = wave * torch.randn(3, 1, 1, generator=fixed) + .5 * torch.randn(3, SIDE, SIDE, generator=fixed)
        if self.augment:
            image = torch.roll(image, int(torch.randint(SIDE, ())), 2) + .5 * torch.randn(3, SIDE, SIDE)
        return dict(inputs=image, label=torch.tensor(label))


class Classifier(BaseModel):
    """A thin tied network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TiedResNet(50, base_channels=8, base_width=32, split_blocks=(1, 2, 2, 4))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(.2), nn.Linear(256, CLASSES))

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict[str, Tensor] | list:
        """Return the loss, or the correctness of each label."""
        scores = self.head(self.backbone(inputs)[-1])
        return dict(loss=nn.functional.cross_entropy(scores, label)) if mode == 'loss' else [(scores.argmax(1) == label).float()]


class Accuracy(BaseMetric):
    """Share of correct labels in percent."""

    def process(self, data_batch: object, data_samples: list) -> None:
        """Store the outputs of the model."""
        self.results.extend(data_samples[0].tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the mean."""
        return dict(accuracy=100 * sum(results) / len(results))


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--epochs', type=int, default=4,
                        help='number of epochs; resumed after half of them (default: %(default)s)')
    add_options(parser, repeats=1)
    args = parser.parse_args()
    with user_errors(), tempfile.TemporaryDirectory() as folder:
        apply_options(args)
        title = (f'A thin TiedResNet-50 on {args.images} generated images, {args.epochs} epochs, resumed after '
                 f'{args.epochs // 2}: differences from a straight run.')
        report(args, title, rows(args, Path(folder)), ('torch', 'mmtied'))


def rows(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Yield the differences of a repeated run, a resumed run, and a resumed run with the hook."""
    straight = {}
    for name, hook, resumed in (('straight', False, False), ('straight again', False, False), ('resumed', False, True),
                                ('straight', True, False), ('resumed', True, True)):
        half = args.epochs // 2
        if resumed:
            train(args, folder / f'half_{hook}', hook, half)
        weights, accuracy = train(args, folder / f'{name}_{hook}', hook, args.epochs,
                                  str(folder / f'half_{hook}/epoch_{half}.pth') if resumed else None)
        first, first_accuracy = straight.setdefault(hook, (weights, accuracy))
        if name == 'straight':
            continue
        parts = {'weights': [key for key in weights if key.endswith(('weight', 'bias'))],
                 'BatchNorm statistics': [key for key in weights if 'running' in key]}
        yield {'run': name, 'ExactResumeHook': 'yes' if hook else 'no',
               **{f'{part}, largest difference': f'{max(float((weights[key] - first[key]).abs().max()) for key in keys):.2g}'
                  for part, keys in parts.items()},
               'weights, relative distance': f'{distance(weights, first, parts["weights"]):.2g}',
               'accuracy, points': f'{accuracy - first_accuracy:+.1f}'}


def distance(weights: dict[str, Tensor], others: dict[str, Tensor], keys: list[str]) -> float:
    """Return the norm of the difference over the norm of the weights."""
    difference = sum((weights[key] - others[key]).square().sum() for key in keys)
    return float((difference / sum(others[key].square().sum() for key in keys)).sqrt())


def train(args: argparse.Namespace, folder: Path, hook: bool, epochs: int, load: str | None = None) -> tuple[dict, float]:
    """Train; return the weights and the accuracy."""
    torch.manual_seed(0)
    loader = dict(batch_size=16, num_workers=2, persistent_workers=True, collate_fn=dict(type='default_collate'))
    runner = Runner(
        Classifier(), str(folder), load_from=load, resume=load is not None, randomness=dict(seed=0), log_level='ERROR',
        train_dataloader=dict(**loader, dataset=Images(args.images, True), sampler=dict(type='DefaultSampler', shuffle=True)),
        val_dataloader=dict(**loader, dataset=Images(args.images // 2, False),
                            sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=epochs), val_cfg=dict(), val_evaluator=[Accuracy()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.05, momentum=.9)),
        custom_hooks=[dict(type='mmtied.ExactResumeHook')] if hook else [],
        default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', interval=1)), experiment_name=folder.name)
    runner.train()
    return runner.model.state_dict(), runner.message_hub.get_scalar('val/accuracy').current()


if __name__ == '__main__':
    main()
