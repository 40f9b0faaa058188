"""Time Mask R-CNN with tied backbones against ResNet: a training step, an inference, and the backbone's share of both.

The detectors are built from the repository's configs. Images, boxes and masks are generated from a seed, with COCO's number and
sizes of instances. A training step goes from uint8 images to updated weights, an inference to boxes and pasted masks. The
backbone alone is timed in the same turns.

    python benchmarks/detectors.py --csv docs/benchmarks/detectors_cpu.csv
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from backbones import quieten
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from reporting import FORMATS, add_timing_options, apply_options, image_size, report
from timing import Times, sum_of, time_in_turns
from torch import nn

from mmtied.cli import user_errors

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
#: Config and baseline of each network.
DETECTORS = {
    'ResNet-50': ('mask_rcnn_r50_2x', 'ResNet-50'),
    'TiedResNet-50': ('mask_rcnn_tiedr50_2x', 'ResNet-50'),
    'TiedResNet-50-S': ('mask_rcnn_tiedr50s_2x', 'ResNet-50'),
    'ResNet-101': ('mask_rcnn_r101_2x', 'ResNet-101'),
    'TiedResNet-101': ('mask_rcnn_tiedr101_2x', 'ResNet-101'),
    'TiedResNet-101-S': ('mask_rcnn_tiedr101s_2x', 'ResNet-101'),
}
MEAN_INSTANCES = 7.3  # of val2017's images with instances: 36335 in 4952
CLASSES = 80


def main() -> None:
    """Run the benchmark."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        on_cpu = torch.device(args.device).type == 'cpu'
        if args.quick:
            args.size, args.batch = [64, 96], 1
        size = image_size(args.size or ([320, 544] if on_cpu else [800, 1344]))
        batch = args.batch or (1 if on_cpu else 2)
        names = list(dict.fromkeys(name for chosen in args.networks for name in (DETECTORS[chosen][1], chosen)))
        steps = {}
        for name in names:
            print(name, file=sys.stderr, flush=True)
            detector = build_detector(name, args.fine_tuning, args.quick).to(args.device)
            steps[name] = DetectorSteps(detector, make_batch(batch, size), FORMATS[args.format])
        rows = []
        for mode in ('training', 'inference'):
            calls = {f'{name}, {part}': call for name in names for part, call in getattr(steps[name], mode)().items()}
            times = time_in_turns(calls, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3,
                                  warmups=1 if args.quick else 2)
            rows += [row(times, name, mode, steps[name].detections) for name in names]
        training = 'stem, first stage and BatchNorm frozen' if args.fine_tuning else 'everything trains'
        report(args, f'Mask R-CNN: {batch} images of {size[0]} x {size[1]}, float32, {args.format}, {training}, '
                     f'medians of {args.repeats} turns.', rows)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_timing_options(parser)
    tied = [name for name, (_, baseline) in DETECTORS.items() if name != baseline]
    parser.add_argument('--networks', nargs='+', choices=tied, default=['TiedResNet-50', 'TiedResNet-50-S'], metavar='NAME',
                        help=f'tied networks, each compared with its baseline: {", ".join(tied)}')
    parser.add_argument('--batch', type=int, help='batch size (default: 1 on a CPU, 2 on a GPU)')
    parser.add_argument('--size', nargs='+', type=int, help='height and width (default: 320 544 on a CPU, 800 1344 on a GPU)')
    parser.add_argument('--format', choices=list(FORMATS), default='contiguous')
    parser.add_argument('--fine-tuning', action='store_true', help='freeze stem, first stage and BatchNorm of every backbone')
    return parser.parse_args()


def row(times: Times, name: str, mode: str, detections: int) -> dict[str, object]:
    """Return one row: seconds of the step and of the backbone, and their ratios to the baseline."""
    baseline, cells = DETECTORS[name][1], {'backbone': name, 'step': mode}
    for part, title in (('whole', 'step'), ('backbone', 'backbone alone')):
        spread = times.spread(f'{name}, {part}')
        ratio = times.ratio(f'{name}, {part}', to=f'{baseline}, {part}')
        cells |= {f'{title}, s': f'{spread.median:.3f}', f'{title}, times baseline': f'{ratio.median:.2f}',
                  f'lowest, {title}': f'{ratio.lowest:.2f}', f'highest, {title}': f'{ratio.highest:.2f}'}
    share = times.ratio(f'{name}, backbone', to=f'{name}, whole').median
    return {**cells, "backbone's share": f'{share:.0%}', 'detections': detections if mode == 'inference' else ''}


def build_detector(name: str, fine_tuning: bool = False, few_regions: bool = False) -> nn.Module:
    """Build Mask R-CNN with seeded random weights.

    An untrained classifier detects nothing, and the mask branch would not run. So the first class gets a bias that lifts every
    proposal above the score threshold, and NMS and the limit of 100 detections have work to do.

    Args:
        name: A key of `DETECTORS`.
        fine_tuning: Freeze the stem, the first stage and BatchNorm, as mmdet does with ImageNet weights; otherwise all trains.
        few_regions: Give the heads 16 regions instead of hundreds, for smoke tests.
    """
    quieten()
    model = Config.fromfile(CONFIGS / f'{DETECTORS[name][0]}.py').model
    model.backbone.update(init_cfg=None, frozen_stages=1 if fine_tuning else -1, norm_eval=fine_tuning)
    if few_regions:
        model.train_cfg.rcnn.sampler.num = model.test_cfg.rpn.max_per_img = 16
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
        detector.init_weights()
    with torch.no_grad():
        detector.roi_head.bbox_head.fc_cls.bias[0] += 4
    return detector


class DetectorSteps:
    """Calls of one detector on one batch.

    Args:
        detector: A detector of mmdet.
        batch: From `make_batch`.
        memory_format: Of weights and images.
    """

    def __init__(self, detector: nn.Module, batch: dict, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        self.detector = detector.to(memory_format=memory_format)
        self.batch = batch
        self.memory_format = memory_format
        self.detections = 0

    def training(self) -> dict[str, Callable[[], object]]:
        """Return a training step, with learning rate 0, and the backbone's forward and backward."""
        self.detector.train()
        optimizer = torch.optim.SGD((weight for weight in self.detector.parameters() if weight.requires_grad), lr=0.,
                                    momentum=.9, weight_decay=1e-4)
        images = self._prepare(training=True)['inputs']

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss, _ = self.detector.parse_losses(self.detector(**self._prepare(training=True), mode='loss'))
            loss.backward()
            optimizer.step()

        def backbone() -> None:
            self.detector.backbone.zero_grad(set_to_none=True)
            sum_of(self.detector.backbone(images)).backward()

        return {'whole': step, 'backbone': backbone}

    def inference(self) -> dict[str, Callable[[], object]]:
        """Return the inference to boxes and pasted masks, and the backbone's forward."""
        self.detector.eval()
        self.detector.zero_grad(set_to_none=True)
        images = self._prepare(training=False)['inputs']

        @torch.no_grad()
        def predict() -> None:
            results = self.detector(**self._prepare(training=False), mode='predict')
            self.detections = sum(len(result.pred_instances) for result in results)

        @torch.no_grad()
        def backbone() -> None:
            sum_of(self.detector.backbone(images))

        return {'whole': predict, 'backbone': backbone}

    def _prepare(self, training: bool) -> dict:
        data = self.detector.data_preprocessor(self.batch, training)
        data['inputs'] = data['inputs'].contiguous(memory_format=self.memory_format)
        return data


def make_batch(images: int, size: tuple[int, int], seed: int = 0) -> dict:
    """Generate a batch as mmdet's pipelines return it: colored ellipses on noise, with their boxes and masks.

    Args:
        images: N.
        size: Height and width.
        seed: The same seed gives the same batch.

    Returns:
        `inputs`, N uint8 images (3, H, W), and `data_samples` with boxes (xyxy), labels and bitmap masks.
    """
    rng = np.random.default_rng(seed)
    samples = [_make_image(rng, *size) for _ in range(images)]
    return dict(inputs=[image for image, _ in samples], data_samples=[sample for _, sample in samples])


def _make_image(rng: np.random.Generator, height: int, width: int) -> tuple[torch.Tensor, DetDataSample]:
    image = rng.integers(90, 150, (3, height, width), dtype=np.uint8)
    y, x = np.ogrid[:height, :width]
    masks, boxes = [], []
    for _ in range(1 + rng.poisson(MEAN_INSTANCES - 1)):
        radii = np.exp(rng.uniform(np.log(4), np.log(min(height, width) / 3), 2))
        centre = rng.uniform(0, 1, 2) * (height, width)
        mask = ((y - centre[0]) / radii[0])**2 + ((x - centre[1]) / radii[1])**2 <= 1
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if not len(rows):
            continue
        image[:, mask] = rng.integers(0, 256, (3, 1), dtype=np.uint8)
        masks.append(mask.astype(np.uint8))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width),
                                         batch_input_shape=(height, width), scale_factor=(1., 1.), img_id=0))
    sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                                       labels=torch.from_numpy(rng.integers(0, CLASSES, len(boxes))),
                                       masks=BitmapMasks(masks, height, width))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long),
                                            masks=BitmapMasks([], height, width))
    return torch.from_numpy(image), sample


if __name__ == '__main__':
    main()
