#!/usr/bin/env python
"""Draw docs/images/filter_similarity.png: Figures 1 and 9 of the tied block convolution paper, in small.

    python docs/figures/filter_similarity.py CIFAR10 FOLDER

VGG16, ResNet-50 and TiedResNet-50-S learn CIFAR-10, from a folder with train/CLASS/* and test/CLASS/*, for 150 steps of 32
images. `mmtied similarity` compares their filters on test images. FOLDER gets configs, checkpoints and figures. It takes 20 to 40
minutes on one core.
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from mmtied.launch.checkpoints import build_model
from mmtied.launch.config import load_config

TARGET = Path(__file__).resolve().parents[1] / 'images/filter_similarity.png'
STEPS, BATCH = 150, 32
BACKBONES = {
    'VGG16': (dict(type='VGG', depth=16, norm_cfg=dict(type='BN'), out_indices=(4,)), 512),
    'ResNet-50': (dict(type='ResNet', depth=50), 2048),
    'TiedResNet-50-S': (dict(type='mmtied.TiedResNet', depth=50, base_width=18, out_indices=(3,)), 2048),
}


def config(name: str) -> Config:
    """Return the config of a classifier."""
    backbone, channels = BACKBONES[name]
    return Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mmtied']),
        model=dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
                   head=dict(type='LinearClsHead', num_classes=10, in_channels=channels, loss=dict(type='CrossEntropyLoss')),
                   data_preprocessor=dict(num_classes=10, mean=[125.3, 123., 113.9], std=[51.6, 50.8, 51.3], to_rgb=True))))


def read(paths: list[Path]) -> Tensor:
    """Read images, normalized, shape (N, 3, 32, 32)."""
    pixels = np.stack([np.asarray(Image.open(path).convert('RGB'), np.float32) for path in paths]).transpose(0, 3, 1, 2)
    return torch.from_numpy((pixels - 120) / 52)


def train(name: str, root: Path, folder: Path) -> tuple[Path, Path]:
    """Train a classifier, and return its config and checkpoint."""
    torch.manual_seed(0)
    written, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    config(name).dump(str(written))
    if checkpoint.is_file():
        return written, checkpoint
    cfg = load_config(str(written))
    model = build_model(cfg)
    model.init_weights()
    model.train()
    classes = sorted(path.name for path in (root / 'train').iterdir())
    paths = [(path, label) for label, of in enumerate(classes) for path in sorted((root / 'train' / of).iterdir())]
    random.Random(0).shuffle(paths)
    optimizer = torch.optim.SGD(model.parameters(), lr=.02, momentum=.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, .02, STEPS)
    for step in range(STEPS):
        batch = paths[step * BATCH:(step + 1) * BATCH]
        images = read([path for path, _ in batch])
        images = images.flip(-1) if step % 2 else images
        scores = model.head.fc(model.neck(model.backbone(images))[-1])
        loss = nn.functional.cross_entropy(scores, torch.tensor([label for _, label in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            print(f'{name} {step + 1}: loss {loss.item():.3f}', flush=True)
    model.eval()
    tested = [(path, label) for label, of in enumerate(classes) for path in sorted((root / 'test' / of).iterdir())[:50]]
    with torch.no_grad():
        scores = model.head.fc(model.neck(model.backbone(read([path for path, _ in tested])))[-1])
    right = (scores.argmax(1) == torch.tensor([label for _, label in tested])).float().mean().item()
    print(f'{name}: {100 * right:.1f} % of 500 test images right', flush=True)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return written, checkpoint


def main() -> None:
    """Train, compare, draw."""
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    networks = [str(path) for name in BACKBONES for path in train(name, root, folder)]
    images = [str(sorted(path.iterdir())[50 + number]) for path in sorted((root / 'test').iterdir()) for number in range(3)]
    subprocess.run([sys.executable, str(TARGET.parents[2] / 'tools/filter_similarity.py'), *networks, '--names', *BACKBONES,
                    '--images', *images, '--size', '32', '--depths', '.25', '.5', '.75', '--filters', '48', '--out',
                    str(folder / 'figures')], check=True)
    shutil.copyfile(folder / 'figures/histograms.png', TARGET)


if __name__ == '__main__':
    main()
