"""Try tied layers in configs shipped by mmdet and mmpretrain: build a model, compute a loss with gradients, and predict.

Each config gets TiedResNet-50 as its backbone, or tied convolutions by ``conv_cfg``, and two random images of 128 x 128. Weights
are random and nothing is downloaded. The result is docs/benchmarks/plug_in.csv, with a reason for each config that fails.

    python benchmarks/plug_in.py
    python benchmarks/plug_in.py --only retinanet dino  # configs whose names contain one of the words; no file without --csv
"""

import argparse
import csv
import gc
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import mmtied  # noqa: F401
from mmtied.analysis.complexity import describe_tying
from mmtied.launch.config import load_config

CSV = Path(__file__).parents[1] / 'docs/benchmarks/plug_in.csv'
TBC = {'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'}
SIZE = 128
_LARGER = ('DDOD', 'DINO', 'SSD')  # have too few cells in the last feature map, or too few queries


class Case(NamedTuple):
    """A shipped config, the way to plug in tied layers, and other changes by dotted key."""

    config: str
    plugged: str
    changes: dict[str, object]


def _cases(plugged: str, package: str, names: str, **changes: object) -> list[Case]:
    return [Case(f'{package}::{name}.py', plugged, {key.replace('__', '.'): value for key, value in changes.items()})
            for name in names.split()]


RESNET, BACKBONE, NECK = 'TiedResNet-50', 'TBC in the backbone', 'TBC in the neck'
CASES = [
    *_cases(RESNET, 'mmdet', """
        faster_rcnn/faster-rcnn_r50_fpn_1x_coco cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco rpn/rpn_r50_fpn_1x_coco
        retinanet/retinanet_r50_fpn_1x_coco atss/atss_r50_fpn_1x_coco gfl/gfl_r50_fpn_1x_coco
        fcos/fcos_r50-caffe_fpn_gn-head_1x_coco vfnet/vfnet_r50_fpn_1x_coco paa/paa_r50_fpn_1x_coco tood/tood_r50_fpn_1x_coco
        ddod/ddod_r50_fpn_1x_coco fsaf/fsaf_r50_fpn_1x_coco foveabox/fovea_r50_fpn_4xb4-1x_coco
        free_anchor/freeanchor_r50_fpn_1x_coco reppoints/reppoints-moment_r50_fpn_1x_coco
        autoassign/autoassign_r50-caffe_fpn_1x_coco centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco
        libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco
        double_heads/dh-faster-rcnn_r50_fpn_1x_coco guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco
        grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco sabl/sabl-faster-rcnn_r50_fpn_1x_coco pisa/faster-rcnn_r50_fpn_pisa_1x_coco
        carafe/faster-rcnn_r50_fpn-carafe_1x_coco pafpn/faster-rcnn_r50_pafpn_1x_coco
        yolof/yolof_r50-c5_8xb8-1x_coco sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco
        detr/detr_r50_8xb2-150e_coco conditional_detr/conditional-detr_r50_8xb2-50e_coco dab_detr/dab-detr_r50_8xb2-50e_coco
        deformable_detr/deformable-detr_r50_16xb2-50e_coco dino/dino-4scale_r50_8xb2-12e_coco
        mask_rcnn/mask-rcnn_r50_fpn_1x_coco cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco
        point_rend/point-rend_r50-caffe_fpn_ms-1x_coco htc/htc_r50_fpn_1x_coco ms_rcnn/ms-rcnn_r50_fpn_1x_coco
        scnet/scnet_r50_fpn_1x_coco solo/solo_r50_fpn_1x_coco solov2/solov2_r50_fpn_1x_coco
        condinst/condinst_r50_fpn_ms-poly-90k_coco_instance yolact/yolact_r50_1xb8-55e_coco
        mask2former/mask2former_r50_8xb2-lsj-50e_coco queryinst/queryinst_r50_fpn_1x_coco
        gn/mask-rcnn_r50_fpn_gn-all_2x_coco gcnet/mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco
        panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco
        tridentnet/tridentnet_r50-caffe_1x_coco nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco
        ghm/retinanet_r50_fpn_ghm-1x_coco fpg/faster-rcnn_r50_fpg_crop640-50e_coco dyhead/atss_r50_fpn_dyhead_1x_coco
        groie/faste-rcnn_r50_fpn_groie_1x_coco boxinst/boxinst_r50_fpn_ms-90k_coco maskformer/maskformer_r50_ms-16xb1-75e_coco
        crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman ddq/ddq-detr-4scale_r50_8xb2-12e_coco
        nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco
        empirical_attention/faster-rcnn_r50-attn1111_fpn_1x_coco"""),
    *_cases(RESNET, 'mmdet', 'rtmdet/rtmdet_s_8xb32-300e_coco yolox/yolox_s_8xb8-300e_coco',
            model__neck__in_channels=[512, 1024, 2048], model__backbone__out_indices=(1, 2, 3)),
    *_cases(BACKBONE, 'mmdet', """
        faster_rcnn/faster-rcnn_r50_fpn_1x_coco faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco
        rtmdet/rtmdet_s_8xb32-300e_coco rtmdet/rtmdet-ins_s_8xb32-300e_coco yolox/yolox_s_8xb8-300e_coco
        yolo/yolov3_d53_8xb8-ms-416-273e_coco yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco
        ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco hrnet/faster-rcnn_hrnetv2p-w18-1x_coco
        regnet/faster-rcnn_regnetx-3.2GF_fpn_1x_coco res2net/faster-rcnn_res2net-101_fpn_2x_coco
        resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco
        dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco tridentnet/tridentnet_r50-caffe_1x_coco ssd/ssd300_coco"""),
    *_cases(NECK, 'mmdet', """
        faster_rcnn/faster-rcnn_r50_fpn_1x_coco dino/dino-4scale_r50_8xb2-12e_coco rtmdet/rtmdet_s_8xb32-300e_coco
        yolox/yolox_s_8xb8-300e_coco ssd/ssd300_coco"""),
    *_cases(RESNET, 'mmpretrain', 'resnet/resnet50_8xb32_in1k seresnet/seresnet50_8xb32_in1k resnext/resnext50-32x4d_8xb32_in1k'),
    *_cases(BACKBONE, 'mmpretrain', """
        resnext/resnext50-32x4d_8xb32_in1k mobilenet_v2/mobilenet-v2_8xb32_in1k mobilenet_v3/mobilenet-v3-small_8xb128_in1k
        shufflenet_v2/shufflenet-v2-1x_16xb64_in1k cspnet/cspresnext50_8xb32_in1k resnest/resnest50_32xb64_in1k
        hrnet/hrnet-w18_4xb32_in1k"""),
]
#: Settings of ResNet that the backbone keeps as TiedResNet.
_KEPT = ('num_stages', 'out_indices', 'norm_cfg', 'style', 'plugins', 'dcn', 'stage_with_dcn', 'trident_dilations')


def main() -> None:
    """Try the chosen cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', nargs='+', metavar='WORD', help='try only configs whose names contain one of the words')
    parser.add_argument('--limit', type=int, default=240, help='time limit per config in seconds (default: %(default)s)')
    parser.add_argument('--csv', type=Path, help='file to write (default: docs/benchmarks/plug_in.csv if all configs are tried)')
    args = parser.parse_args()
    cases = [case for case in CASES if not args.only or any(word in case.config for word in args.only)]
    path = args.csv or (None if args.only else CSV)
    warnings.filterwarnings('ignore')
    rows = []
    for case in cases:
        start = time.perf_counter()
        rows.append(row := try_case(case, args.limit))
        if path:
            _write(rows, path)  # results so far, in case of an interruption
        print(f'{row["config"]}, {row["plugged"]}: loss {row["loss"]}, predict {row["predict"]}; '
              f'{time.perf_counter() - start:.0f} s; {row["reason"] or row["tied"]}', file=sys.stderr, flush=True)
    works = sum(row['predict'] == 'yes' for row in rows)
    print(f'{works} of {len(rows)} configs build, give a loss and predict')


def try_case(case: Case, limit: int = 240) -> dict[str, str]:
    """Build and run one model; return its row of the table, with the reason of a failure."""
    row = {'config': case.config, 'plugged': case.plugged, 'loss': 'no', 'predict': 'no', 'tied': '', 'reason': ''}
    torch.manual_seed(0)
    try:
        with _time_limit(limit):
            model, batch = build(case)
            row['tied'] = describe_tying(model).partition(' convolutions')[0]
            loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
            loss.backward()
            if not loss.isfinite():
                raise ValueError(f'the loss is {loss.item()}')
            row['loss'] = 'yes'
            model.eval()
            with torch.no_grad():
                results = model(**model.data_preprocessor(batch, False), mode='predict')
            if not results or not all(any(key.startswith('pred_') for key in result.to_dict()) for result in results):
                raise ValueError('no predictions')
            row['predict'] = 'yes'
    except Exception as error:  # the table shows whatever goes wrong
        message = re.sub(r' at "/.*', '', ' '.join(str(error).split()))  # a C++ source file
        last = traceback.extract_tb(error.__traceback__)[-1]
        row['reason'] = f'{type(error).__name__}: {message or f"in {Path(last.filename).name}, line {last.lineno}"}'[:300]
    gc.collect()
    return row


def _write(rows: list[dict[str, str]], path: Path) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def build(case: Case) -> tuple[nn.Module, dict]:
    """Build the model of a case in training mode, and a batch for it."""
    cfg = load_config(case.config)
    init_default_scope(cfg.default_scope)
    plug(cfg.model, case.plugged)
    cfg.merge_from_dict(case.changes)
    _drop_pretrained(cfg.model)
    if cfg.get('data_preprocessor') and 'data_preprocessor' not in cfg.model:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.get('data_preprocessor', {}).pop('batch_augments', None)  # they resize to hundreds of pixels
    model = MODELS.build(cfg.model)
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD reads it
    return model.train(), _detection_batch(cfg) if cfg.default_scope == 'mmdet' else _classification_batch()


def plug(model: Config, plugged: str) -> None:
    """Put tied layers into a model's config."""
    if plugged == RESNET:
        kept = {key: model.backbone[key] for key in _KEPT if key in model.backbone}
        model.backbone = {'type': 'mmtied.TiedResNet', 'depth': 50, **kept}
    else:
        part = model.backbone if plugged == BACKBONE else model.neck
        for layer in part if isinstance(part, list) else [part]:
            layer['conv_cfg'] = TBC
            layer.pop('with_cp', None)


def _drop_pretrained(cfg: dict | list) -> None:
    """Remove references to weights, and the settings that expect them."""
    for value in cfg if isinstance(cfg, list) else cfg.values():
        if isinstance(value, (dict, list)):
            _drop_pretrained(value)
    if isinstance(cfg, dict) and isinstance(cfg.get('init_cfg'), dict) and cfg['init_cfg'].get('type') == 'Pretrained':
        cfg['init_cfg'] = None


def _detection_batch(cfg: Config) -> dict:
    from mmdet.testing import demo_mm_inputs
    strides = 8 if 'HybridTaskCascade' in cfg.model.type or 'SCNet' in cfg.model.type else 1
    boxes_only = 'RTMDetSepBNHead' in str(cfg.model)  # RTMDet fails to resize masks that its head does not use
    size = 3 * SIZE if any(name in str(cfg.model) for name in _LARGER) else SIZE
    return demo_mm_inputs(2, [(3, size, size)] * 2, num_items=[3, 5], with_mask=not boxes_only,
                          with_semantic=strides == 8 or 'Panoptic' in cfg.model.type, sem_seg_output_strides=strides)


def _classification_batch() -> dict:
    from mmpretrain.structures import DataSample
    return {'inputs': torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8),
            'data_samples': [DataSample().set_gt_label(label) for label in (1, 2)]}


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError after a number of seconds, if the system supports alarms."""
    if not hasattr(signal, 'SIGALRM'):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f'not finished after {seconds} s')

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


if __name__ == '__main__':
    main()
