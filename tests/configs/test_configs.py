"""Every config trains one step and predicts, or shares model, optimizer and hooks with one that does."""

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope
from torch import Tensor, nn

from mmtied.launch.config import load_config
from mmtied.training import LossHook
from mmtied.training.loss_hook import attach
from tests.helpers.detectors import ROOT, load_recipe, two_images, use_small_heads

CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)

#: Millions of parameters with an ImageNet head (CIFAR networks: with their own).
#: From the papers or the specification; well known for the baselines.
MILLIONS = {
    'r50': 25.56, 'r101': 44.55, 'x101_32x8d': 88.79, 'se101': 49.33, 'resnest50fast': 27.5, 'efficientnet_b0': 5.29,
    'tiedr50': 21.95, 'tiedr50s': 13.92, 'tiedr101': 39.29, 'tiedr101s': 24.00, 'tiedr50_2s48w': 23.64, 'tiedr50_6s24w': 23.24,
    'tiedr50_8s18w': 23.53, 'tiedr50_concat': 27.62, 'tiedse101': 41.68, 'tiedse101s': 26.39, 'tiedx101_4s72w': 66.1,
    'tiedresnest50s': 16.27, 'se50_tiedse1': 28.1, 'se50_tiedse2': 26.2, 'se50_tiedse4': 25.7, 'se50_tiedse8': 25.6,
    'efficientnet_b0_tiedse2': 4.81, 'efficientnet_b0_tiedse4': 4.69,
    'r50_gcb': 35.6, 'r50_gcb_groups2': 30.6, 'r50_tiedgcb2': 28.1, 'r50_tiedgcb4': 26.2,
    'sharedr50': 20.51, 'sharedr50_2bases': 18.26, 'sharedr50_all': 16.02, 'sharedr50_noorthoreg': 20.51, 'sharedr101': 29.47,
    'sharedr34_s48u1': 11.79, 'sharedmobilenetv2': 3.24, 'sharedmobilenetv2_2bases': 2.98, 'r34': 21.80, 'mobilenetv2': 3.50,
    'densenet121_cifar100': 7.05, 'shareddensenet121_s16u1_cifar100': 5.07, 'x50_32x4d_cifar100': 23.18,
    'sharedx50_s64u4_cifar100': 19.3, 'sharedr34_s32u1_noorthoreg_cifar100': 7.73, 'sharedr56_s16u1_noorthoreg_cifar10': 0.27,
    'r34_cifar100': 21.33, 'sharedr34_s32u1_cifar100': 7.73, 'r32_cifar10': 0.46, 'r56_cifar10': 0.85,
    'x101_64x4d': 83.46,
    'x50_32x4d': 25.03, 'x101_32x4d': 44.18,  # G-ResNeXt's weights are dense while it trains
    **dict.fromkeys(('gx50', 'gx50_b48', 'gx50_b64', 'gx50_b96', 'gx50_b128'), 68.88),
    **dict.fromkeys(('gx101', 'gx101_b2', 'gx101_b48', 'gx101_b64', 'gx101_b96', 'gx101_b128', 'gx101_b256'), 126.89),
    'x50_learned_b32': 24.81, 'x50_learned_b96': 23.97, 'x101_learned_b32': 43.34, 'x101_learned_b96': 42.18,
    'r200_1x64d': 64.67, 'r101_1x100d': 85.61, 'x101_2x64d': 84.20,
    'sharedr56_s16u1_cifar10': 0.27, 'sharedr56_s16u1_2bases_cifar10': 0.32, 'sharedr32_s16u1_2bases_cifar10': 0.25,
    'r18': 11.69, 'r18_c69': 13.54, 'igc_l4m32': 12.25, 'igc_l16m16': 13.53, 'igc_l100m2': 8.64,
    'regconv_w16_d20_cifar10': 0.270, 'regconv_w16_d20_cifar100': 0.276, 'regconv_w18_d20_cifar10': 0.341,
    'regconv_w18_d20_cifar100': 0.348, 'sumfusion_d20_cifar10': 0.268, 'sumfusion_d20_cifar100': 0.271,
    'igc_l4m8_d20_cifar10': 0.278, 'igc_l4m8_d20_cifar100': 0.289, 'igc_l24m2_d20_cifar10': 0.156,
    'igc_l24m2_d20_cifar100': 0.173, 'igc_l24m2_d8_cifar10': 0.048, 'regconv_w16_d50_ident_cifar10': 0.759,
    'regconv_w18_d50_ident_cifar10': 0.960, 'igc_l4m8_d50_ident_cifar10': 0.778, 'igc_l24m2_d50_ident_cifar10': 0.426,
    'regconv_w16_d50_ident_cifar100': 0.764, 'regconv_w18_d50_ident_cifar100': 0.966, 'igc_l4m8_d50_ident_cifar100': 0.790,
    'igc_l24m2_d50_ident_cifar100': 0.444, 'igc_l40m2_figure3_cifar100': 0.039, 'igc_l85m2_figure3_cifar100': 0.129,
    'igc_l32m26_d20_cifar10': 23.83, 'igc_l32m26_d20_cifar100': 24.13, 'igc_l32m26_d20_svhn': 23.83,
    'igc_l16m32_d20_cifar10': 17.53, 'igc_l16m32_d20_cifar100': 17.71, 'igc_l16m32_d20_svhn': 17.53,
    'igc_l450m2_d20_cifar10': 19.03, 'igc_l450m2_d20_cifar100': 19.35,
}
#: Networks without a printed size.
UNPRINTED = {'tiedr50_nomixer', 'tiedse50', 'tiedse50s', 'tiedx50', 'tiedx50s', 'tiedx101', 'tiedx101s', 'tiedresnest101',
             'tiedr50_demo', 'sharedr34_s16u1_cifar100', 'sharedr34_s16u1_noorthoreg_cifar100',
             'hrnet_w18', 'hrnet_w32', 'hrnet_w40'}


def network_of(name: str) -> str:
    """Return the network in a config's name: tiedr50 in mask_rcnn_tiedr50_2x."""
    stem = Path(name).stem
    for start in ('cascade_mask_rcnn_', 'cascade_rcnn_', 'mask_rcnn_', 'faster_rcnn_', 'retinanet_'):
        stem = stem.removeprefix(start)
    for end in ('_1x', '_2x', '_20e', '_cityscapes', '_voc', '_in1k', '_b8', '_95e', '_150e', '_300e'):
        stem = stem.removesuffix(end)
    return stem


def build(cfg: ConfigDict) -> nn.Module:
    """Build a config's model and initialize it without downloads."""
    cfg.model.backbone.init_cfg = None
    use_small_heads(cfg.model)
    if 'data_preprocessor' in cfg:  # as mmengine's Runner does
        cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def train_a_step(model: nn.Module, cfg: ConfigDict, batch: dict[str, list]) -> dict[str, Tensor]:
    """Train one step with the config's optimizer and loss terms; all trained parameters get gradients, and most move."""
    for hook in cfg.get('custom_hooks') or []:
        if issubclass(HOOKS.get(hook.type), LossHook):
            term = HOOKS.build(hook)
            term.check_model(model)
            attach(term, model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: p.detach().flatten()[:100].clone() for key, p in model.named_parameters() if p.requires_grad}
    without = []
    optimizer.optimizer.register_step_pre_hook(
        lambda *_: without.extend(key for key in before if model.get_parameter(key).grad is None))
    log = model.train_step(batch, optimizer)
    assert not without
    assert torch.isfinite(log['loss'])
    moved = [not torch.equal(model.get_parameter(key).flatten()[:100], value) for key, value in before.items()]
    assert sum(moved) > 0.5 * len(moved)  # zero-initialized residuals block some gradients in the first step
    return log


def check_predictions(model: nn.Module, scope: str, results: list) -> None:
    assert len(results) == 2
    for result in results:
        if scope == 'mmpretrain':
            assert result.pred_score.shape == (model.head.num_classes, )
            torch.testing.assert_close(result.pred_score.sum(), Tensor([1])[0])
        else:
            assert result.pred_instances.bboxes.shape[1:] == (4, )
            assert 'masks' in result.pred_instances or not model.with_mask
            assert all(mask.shape == result.ori_shape for mask in result.pred_instances.get('masks', []))


#: Configs that train the model of another one with the same optimizer and hooks, on another schedule.
SAME_MODEL = {
    **{f'cascade_rcnn_{network}_20e': f'cascade_rcnn_{network}_1x' for network in ('r101', 'tiedr101', 'tiedr101s')},
    **{f'retinanet_{network}_2x': f'retinanet_{network}_1x'
       for network in ('r50', 'r101', 'tiedr50', 'tiedr50s', 'tiedr101', 'tiedr101s')},
    **{f'mask_rcnn_r50{block}_1x': f'mask_rcnn_r50{block}_2x'
       for block in ('', '_gcb', '_gcb_groups2', '_tiedgcb2', '_tiedgcb4')},
    **{f'retinanet_r{depth}_b8_1x': f'retinanet_r{depth}_1x' for depth in (50, 101)},
    **{f'imagenet/r{depth}_150e_in1k': f'imagenet/r{depth}_in1k' for depth in (50, 101)},
}
#: Configs of G-ResNeXt that differ from another one in b alone, see test_group_recipes.py.
SAME_BUT_B = {f'imagenet/gx{depth}_b{b}_in1k': f'imagenet/gx{depth}_in1k'
              for depth, b in ((50, 48), (50, 64), (50, 96), (50, 128), (101, 2), (101, 48), (101, 64), (101, 96), (101, 128),
                               (101, 256))}
#: Configs of IGC that differ from another one in the number of classes and the data set alone.
SAME_BUT_CLASSES = {
    **{f'cifar/{network}_cifar100': f'cifar/{network}_cifar10' for network in (
        *(f'{name}_d20' for name in ('igc_l4m8', 'igc_l24m2', 'igc_l32m26', 'igc_l16m32', 'igc_l450m2', 'sumfusion',
                                     'regconv_w16', 'regconv_w18')),
        *(f'{name}_d50_ident' for name in ('igc_l4m8', 'igc_l24m2', 'regconv_w16', 'regconv_w18')))},
    **{f'svhn/{network}_d20_svhn': f'cifar/{network}_d20_cifar10' for network in ('igc_l32m26', 'igc_l16m32')},
}
REPEATED = [f'configs/{name}.py' for name in (*SAME_MODEL, *SAME_BUT_B, *SAME_BUT_CLASSES)]


@pytest.mark.parametrize(('name', 'other'), SAME_MODEL.items())
def test_same_model_on_another_schedule(name, other):
    one, two = (load_recipe(config) for config in (name, other))
    for key in ('model', 'optim_wrapper', 'custom_hooks', 'data_preprocessor', 'default_scope'):
        assert one.get(key) == two.get(key)


@pytest.mark.parametrize(('name', 'other'), SAME_BUT_B.items())
def test_same_model_with_another_bound(name, other):
    one, two = (load_recipe(config) for config in (name, other))
    hook = one.custom_hooks[0]
    with torch.device('meta'):
        backbone = MODELS.build(one.model.backbone)
    HOOKS.build(hook).check_model(backbone)  # the bound can be met
    assert hook.pop('b') != two.custom_hooks[0].pop('b')
    assert one.to_dict() == two.to_dict()


@pytest.mark.parametrize(('name', 'other'), SAME_BUT_CLASSES.items())
def test_same_model_for_other_classes(name, other):
    one, two = (load_recipe(config) for config in (name, other))
    with DefaultScope.overwrite_default_scope(one.default_scope), torch.device('meta'):
        check_size(MODELS.build(one.model), name, one.default_scope)
    classes = 100 if name.endswith('cifar100') else 10
    assert (one.model.head.pop('num_classes'), two.model.head.pop('num_classes')) == (classes, 10)
    assert one.data_preprocessor.keys() == two.data_preprocessor.keys()  # each data set has its own mean
    assert one.data_preprocessor.num_classes == classes
    for key in ('model', 'optim_wrapper', 'custom_hooks', 'default_scope'):
        assert one.get(key) == two.get(key)


def check_size(model: nn.Module, name: str, scope: str) -> None:
    """Compare a network with the millions of parameters in the table above."""
    network = network_of(name)
    assert (network in MILLIONS) != (network in UNPRINTED)
    if network in MILLIONS:
        if scope == 'mmpretrain':
            count = sum(p.numel() for p in model.parameters())
        else:
            count = sum(p.numel() for p in model.backbone.parameters()) + model.neck.in_channels[-1] * 1000 + 1000
        digits = len(str(MILLIONS[network]).partition('.')[2])
        assert count / 1e6 == pytest.approx(MILLIONS[network], abs=0.51 * 10**-digits)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in REPEATED])
def test_trains_and_predicts(name, quick_init):
    if '/' in name.removeprefix('configs/') or '_se101_' in name:
        pytest.importorskip('mmpretrain')
    cfg = load_config(name)
    scope = cfg.default_scope
    with DefaultScope.overwrite_default_scope(scope):
        model = build(cfg)
        batch = two_images(model, scope, 64 if '/imagenet/' in name else 32)
        model.train()
        log = train_a_step(model, cfg, batch)
        assert ('loss_orthogonality' in log) == ('shared' in name and 'noorthoreg' not in name)
        assert ('resource_factor' in log) == ('gx' in name)
        model.eval()
        with torch.no_grad():
            results = model(**model.data_preprocessor(batch, False), mode='predict')
        check_predictions(model, scope, results)
    check_size(model, name, scope)
