"""Mask R-CNN from the repository's configs: a training step, an inference, and the backbone's part of both, as calls to time."""

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from network_pairs import quieten
from network_timing import sum_of
from torch import nn

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
#: The config of each network, and the network that it is compared with.
DETECTORS = {
    'ResNet-50': ('mask_rcnn_r50_2x', 'ResNet-50'),
    'TiedResNet-50': ('mask_rcnn_tiedr50_2x', 'ResNet-50'),
    'TiedResNet-50-S': ('mask_rcnn_tiedr50s_2x', 'ResNet-50'),
    'ResNet-101': ('mask_rcnn_r101_2x', 'ResNet-101'),
    'TiedResNet-101': ('mask_rcnn_tiedr101_2x', 'ResNet-101'),
    'TiedResNet-101-S': ('mask_rcnn_tiedr101s_2x', 'ResNet-101'),
}


def build_detector(name: str, fine_tuning: bool = False, few_regions: bool = False) -> nn.Module:
    """Mask R-CNN with a backbone, with seeded random weights.

    Backbones train alike, whatever their configs say: wholly and with BatchNorm in training mode, or with `fine_tuning` as
    mmdet trains one that comes from ImageNet, without its stem and first stage and with BatchNorm in evaluation mode.

    The classifier of a trained detector finds objects, that of an untrained one nothing, and the mask branch would not run. So
    the first class gets a bias that puts every proposal above the score threshold; NMS and the limit of 100 then have work.

    `few_regions` lets the heads work on 16 regions in place of hundreds: for a quick look.
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
    """The calls of one detector on one batch; `training` and `inference` also put it into that mode.

    Args:
        detector: mmdet's.
        batch: From `make_batch`.
        memory_format: Of weights and images.
    """

    def __init__(self, detector: nn.Module, batch: dict, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        self.detector = detector.to(memory_format=memory_format)
        self.batch = batch
        self.memory_format = memory_format
        self.detections = 0

    def training(self) -> dict[str, Callable[[], object]]:
        """A step from the uint8 images to new weights, and forward and backward of the backbone alone.

        The learning rate is 0, so that random weights stay what they are.
        """
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
        """From the uint8 images to boxes and pasted masks, and the backbone alone."""
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
