"""DistillationHook against plain PyTorch, in runs with accumulation, resuming, AMP and two processes, and in mmdet."""

import copy
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModule, ImgDataPreprocessor
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.launch.runner import leave_processes
from mmtied.training.distillation import DISTANCES, Distillation, DistillationHook
from mmtied.training.teacher import Normalization, Teacher, build_teacher, stage_widths
from tests.helpers.loss_hooks import (
    DistanceModel,
    RandomImages,
    assert_same_weights,
    logged,
    make_openmmlab_model,
    make_runner,
)
from tests.helpers.processes import run_processes

DATA = RandomImages((3, 16, 16), (8, 4, 4))
WEIGHT = 0.5
STAGES = ('layer1', 'layer2')


@MODELS.register_module()
class TwoStages(BaseModule):
    """Two convolutions with BatchNorm, of 4 and 8 channels times `width`."""

    def __init__(self, width: int = 1, norm_eval: bool = False, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norm_eval = norm_eval
        for number, (before, after) in enumerate([(3, 4 * width), (4 * width, 8 * width)], 1):
            layers = nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            self.add_module(f'layer{number}', nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class Student(DistanceModel):
    """Learns targets with a backbone named `layers`."""

    def __init__(self, norm_eval: bool = False) -> None:
        super().__init__()
        self.layers = TwoStages(norm_eval=norm_eval)


class KeepAdapters(Hook):
    """Keeps the initial adapters and the teacher of a run."""

    def before_train(self, runner: Runner) -> None:
        term = getattr(runner.model, 'module', runner.model).distillation
        self.adapters = {stage: weight.detach().clone() for stage, weight in term.adapters().items()}
        self.teacher = term.teacher.network
        self.state = copy.deepcopy(self.teacher.state_dict())


@pytest.fixture
def teacher(tmp_path) -> dict:
    """Settings of a teacher twice as wide as the student, with weights in a file."""
    return settings_of(TwoStages(width=2), tmp_path / 'teacher.pth', width=2)


def settings_of(network: nn.Module, path: Path, **settings) -> dict:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(.5, 2.)
    torch.save({'state_dict': network.state_dict()}, path)
    return {'type': 'DistillationHook', 'teacher': {'type': 'TwoStages', **settings}, 'weights': str(path), 'stages': STAGES,
            'student': 'layers', 'loss_weight': WEIGHT}


def cosine_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    products = (student * teacher).sum(1)
    lengths = [features.pow(2).sum(1).clamp(min=1e-16).sqrt() for features in (student, teacher)]
    return (1 - products / (lengths[0] * lengths[1])).mean()


def mse_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).pow(2).sum() / sum(((channel - channel.mean())**2).sum() for channel in teacher.unbind(1))


def train_by_hand(model: Student, network: nn.Module, adapters: dict[str, Tensor], distance, *, epochs: int, accumulate: int,
                  weight=lambda progress: WEIGHT) -> dict[str, Tensor]:
    """Train student and adapters as a loop in plain PyTorch; return the adapters."""
    adapters = {stage: nn.Parameter(value.clone()) for stage, value in adapters.items()}
    optimizer = torch.optim.SGD([*model.parameters(), *adapters.values()], lr=0.05, momentum=0.9)
    batches = list(torch.utils.data.DataLoader(DATA, 2)) * epochs
    for number, batch in enumerate(batches, 1):
        outputs, targets = {}, {}
        for kept, stages in ((outputs, model.layers), (targets, network)):
            kept['layer1'] = stages.layer1(batch['inputs'])
            kept['layer2'] = stages.layer2(kept['layer1'])
        loss = (outputs['layer2'] - batch['target']).square().mean()
        for stage in STAGES:
            mapped = outputs[stage]
            if adapters:
                mapped = torch.einsum('nchw,dc->ndhw', mapped, adapters[stage][:, :, 0, 0])
            loss = loss + weight((number - 1) / len(batches)) * distance(mapped, targets[stage].detach()) / 2
        (loss / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return adapters


@pytest.mark.parametrize(('loss', 'by_hand'), [('cosine', cosine_by_hand), ('mse', mse_by_hand)])
def test_distances(loss, by_hand):
    student, target = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(DISTANCES[loss](student, target), by_hand(student, target))
    assert DISTANCES[loss](target, target).abs() < 1e-6


@pytest.mark.parametrize(('accumulate', 'loss', 'by_hand'), [(1, 'cosine', cosine_by_hand), (3, 'mse', mse_by_hand)])
def test_training_matches_a_plain_loop(tmp_path, teacher, accumulate, loss, by_hand):
    """Gradients reach the student and the adapters; the teacher does not change."""
    model, keep = Student(), KeepAdapters()
    plain = copy.deepcopy(model)
    runner = make_runner(model, DATA, tmp_path, {**teacher, 'loss': loss}, keep, accumulate=accumulate)
    runner.train()
    adapters = train_by_hand(plain, keep.teacher, keep.adapters, by_hand, epochs=2, accumulate=accumulate)
    assert_same_weights(model, plain, rtol=1e-4, atol=1e-5)
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['distillation']
    torch.testing.assert_close(saved, {stage: weight.detach() for stage, weight in adapters.items()}, rtol=1e-4, atol=1e-5)
    assert not torch.equal(saved['layer1'], keep.adapters['layer1'])
    assert not any(module.training for module in keep.teacher.modules())
    torch.testing.assert_close(keep.teacher.state_dict(), keep.state, rtol=0, atol=0)
    assert all(weight.grad is None and not weight.requires_grad for weight in keep.teacher.parameters())
    torch.testing.assert_close(logged(runner, 'loss'), logged(runner, 'loss_distance') + logged(runner, 'loss_distill'))
    assert not hasattr(model, 'distillation')
    assert not model._forward_hooks and not model.layers._forward_pre_hooks and not model.layers.layer1._forward_hooks


def test_equal_widths_need_no_adapters(tmp_path):
    network = TwoStages()
    model, keep = Student(), KeepAdapters()
    plain = copy.deepcopy(model)
    make_runner(model, DATA, tmp_path, settings_of(network, tmp_path / 'teacher.pth'), keep).train()
    train_by_hand(plain, keep.teacher, {}, cosine_by_hand, epochs=2, accumulate=1)
    assert keep.adapters == {}
    assert_same_weights(model, plain, rtol=1e-4, atol=1e-5)
    assert 'distillation' not in torch.load(tmp_path / 'epoch_2.pth', weights_only=False)


def test_weight_falls_to_zero_and_the_teacher_rests(tmp_path, teacher):
    model, keep, calls = Student(), KeepAdapters(), []
    plain = copy.deepcopy(model)

    class Count(Hook):
        def before_train(self, runner: Runner) -> None:
            runner.model.distillation.teacher.network.register_forward_hook(lambda *_: calls.append(1))

    runner = make_runner(model, DATA, tmp_path, {**teacher, 'schedule': 'linear', 'end': .5}, keep, Count())
    runner.train()
    train_by_hand(plain, keep.teacher, keep.adapters, cosine_by_hand, epochs=2, accumulate=1,
                  weight=lambda progress: WEIGHT * max(0, 1 - 2 * progress))
    assert_same_weights(model, plain, rtol=1e-4, atol=1e-5)
    assert len(calls) == 6
    terms = logged(runner, 'loss_distill')
    assert (terms[:6] > 0).all()
    assert (terms[6:] == 0).all()


def test_schedules():
    shares = (0, .2, .4, .6, 1)
    weights = {schedule: [DistillationHook('torchvision://resnet50', loss_weight=2, schedule=schedule, end=.8).weight_at(share)
                          for share in shares] for schedule in ('constant', 'linear', 'cosine')}
    assert weights['constant'] == [2, 2, 2, 2, 0]
    assert weights['linear'] == pytest.approx([2, 1.5, 1, .5, 0])
    assert weights['cosine'] == pytest.approx([2, 1 + .5**.5, 1, 1 - .5**.5, 0])


def test_resuming(tmp_path, teacher):
    model = Student()
    straight, interrupted = copy.deepcopy(model), copy.deepcopy(model)
    make_runner(straight, DATA, tmp_path / 'straight', teacher, seed=5).train()
    make_runner(interrupted, DATA, tmp_path / 'interrupted', teacher, seed=5, epochs=1).train()
    resumed = Student()
    make_runner(resumed, DATA, tmp_path / 'interrupted', teacher, seed=6, resume=True).train()
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict())
    ends = [torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('straight', 'interrupted')]
    torch.testing.assert_close(ends[0]['distillation'], ends[1]['distillation'])
    with pytest.raises(ValueError, match=r'the checkpoint has adapters .*, this run \{\}; resume with the teacher and stages'):
        make_runner(Student(), DATA, tmp_path / 'interrupted', settings_of(TwoStages(), tmp_path / 'same.pth'), epochs=3,
                    resume=True).train()


def test_checkpoints_are_those_of_the_plain_model(tmp_path, teacher):
    model = Student()
    make_runner(model, DATA, tmp_path, teacher, {'type': 'EMAHook'}, epochs=1).train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    Student().load_state_dict(checkpoint['state_dict'])  # averaged
    torch.testing.assert_close({key.removeprefix('module.'): value for key, value in checkpoint['ema_state_dict'].items()
                                if key.startswith('module.')}, dict(model.state_dict()))


def test_random_numbers_are_those_of_the_run_without_it(tmp_path, teacher):
    make_runner(Student(), DATA, tmp_path, teacher, epochs=1, seed=3).train()
    after = torch.rand(1)
    make_runner(Student(), DATA, tmp_path, epochs=1, seed=3).train()
    assert torch.equal(after, torch.rand(1))


def test_mixed_precision(tmp_path, teacher, amp_on_the_cpu):
    """In bfloat16 with scaled gradients, the run stays close to the plain one."""
    runs, changes = [], []
    for settings in ({}, {'type': 'AmpOptimWrapper', 'loss_scale': 512., 'dtype': 'bfloat16'}):
        torch.manual_seed(0)
        keep = KeepAdapters()
        runs.append(make_runner(Student(), DATA, tmp_path, teacher, keep, epochs=1, seed=0, **settings))
        runs[-1].train()
        saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['distillation']
        changes.append(torch.cat([(saved[stage] - weight).flatten() for stage, weight in keep.adapters.items()]))
    torch.testing.assert_close(logged(runs[1], 'loss_distill'), logged(runs[0], 'loss_distill'), rtol=.01, atol=0)
    assert torch.cosine_similarity(*changes, dim=0) > .95
    assert .9 < changes[1].norm() / changes[0].norm() < 1.1  # so the gradients are unscaled
    assert runs[1].optim_wrapper.loss_scaler.get_scale() == 512


def train_two_ranks(rank: int, folder: Path, hook: dict) -> None:
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    for find_unused in (False, True):
        (folder / str(find_unused)).mkdir(exist_ok=True)
        train_rank(rank, 2, folder, folder / str(find_unused), hook, launcher='pytorch', cfg={'model_wrapper_cfg': {
            'type': 'MMDistributedDataParallel', 'device_ids': None, 'find_unused_parameters': find_unused}})
    leave_processes()


def train_rank(rank: int, world_size: int, start: Path, folder: Path, hook: dict, **settings) -> None:
    torch.set_num_threads(1)
    model = Student(norm_eval=True)
    model.load_state_dict(torch.load(start / 'student.pth'))
    make_runner(model, DATA, folder, hook, batch=4 // world_size, seed=1, **settings).train()
    torch.save(model.state_dict(), folder / f'{rank}.pt')


def test_two_processes_equal_one(tmp_path, teacher):
    """Also if the term ends before training does."""
    torch.save(Student().state_dict(), tmp_path / 'student.pth')
    hook = {**teacher, 'schedule': 'linear', 'end': .5}
    train_rank(0, 1, tmp_path, tmp_path / 'one', hook)
    run_processes(train_two_ranks, (tmp_path, hook))
    expected = torch.load(tmp_path / 'one/epoch_2.pth', weights_only=False)
    for found in (tmp_path / 'False', tmp_path / 'True'):
        for rank in (0, 1):
            torch.testing.assert_close(torch.load(found / f'{rank}.pt'), dict(expected['state_dict']))
        saved = torch.load(found / 'epoch_2.pth', weights_only=False)
        torch.testing.assert_close(saved['distillation'], expected['distillation'])


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_features_approach_the_teacher(kind):
    """In mmdet and mmpretrain, beside the losses of the task."""
    backbone = {'type': 'mmdet.ResNet', 'depth': 50, 'base_channels': 8, 'stem_channels': 8}
    model, batch = make_openmmlab_model(kind, {**backbone, 'conv_cfg': {'type': 'TBC', 'indivisible': 'untie'}})
    model.distillation = term = make_term(model.backbone, MODELS.build(backbone), ('layer2', 'layer3', 'layer4'))
    assert not term.adapters()
    term.attach(model, model.backbone)
    term.loss_weight = 100.
    model.train()
    data = model.data_preprocessor(batch, True)
    optimizer = torch.optim.Adam(model.backbone.parameters(), lr=2e-3)
    terms = []
    for _ in range(4):
        total, log = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        terms.append(log['loss_distill'].item())
    assert total > log['loss_distill']  # the task counts too
    assert terms[-1] < .9 * terms[0]
    model.eval()
    model(data['inputs'], mode='tensor')
    assert term._features == {}


def make_term(student: nn.Module, network: nn.Module, stages: tuple[str, ...] = STAGES) -> Distillation:
    return Distillation(student, Teacher(network, stages), {stage: stage for stage in stages}, DISTANCES['cosine'])


def test_images_are_normalized_anew_for_the_teacher():
    image = torch.randint(0, 256, (2, 3, 8, 8)).float()  # in RGB
    mine, theirs = Normalization((1., 2., 3.), (4., 5., 6.), rgb=True), Normalization((30., 20., 10.), (3., 2., 1.), rgb=False)
    teacher = Teacher(TwoStages(), STAGES, mine)

    def apply(normalization: Normalization) -> Tensor:
        channels = image if normalization.rgb else image[:, [2, 1, 0]]
        return torch.stack([(channels[:, index] - normalization.mean[index]) / normalization.std[index] for index in range(3)], 1)

    assert teacher.renormalize(apply(theirs)).equal(apply(theirs))  # not known
    teacher.student_normalization = theirs
    torch.testing.assert_close(teacher.renormalize(apply(theirs)), apply(mine))
    teacher.student_normalization = mine
    assert teacher.renormalize(image) is image


def test_normalization_of_a_model_and_a_config():
    from mmtied.launch.config import load_config
    model = Student()
    model.data_preprocessor = ImgDataPreprocessor(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    of_model = Normalization.of_model(model)
    assert of_model.rgb
    assert of_model.matches(Normalization.of_config(load_config('configs/retinanet_r50_1x.py')))
    assert not of_model.matches(of_model._replace(rgb=False))
    assert Normalization.of_model(Student()) is None


def test_torchvision_by_name(tmp_path, monkeypatch):
    from torchvision import models
    network = models.resnet18()
    torch.save(network.state_dict(), tmp_path / 'resnet18.pth')
    teacher = build_teacher('torchvision://resnet18', str(tmp_path / 'resnet18.pth'), ['layer1', 'layer4'])
    assert teacher.widths == {'layer1': 64, 'layer4': 512}
    images = torch.randn(1, 3, 64, 64)
    early = nn.Sequential(*list(network.eval().children())[:8])
    torch.testing.assert_close(teacher(images)['layer4'], early(images))
    assert teacher.normalization.matches(Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), rgb=True))
    asked = []
    monkeypatch.setattr(models.ResNet18_Weights, 'get_state_dict', lambda self, **_: asked.append(self) or network.state_dict())
    build_teacher('torchvision://resnet18', None, ['layer1'])
    assert asked == [models.ResNet18_Weights.IMAGENET1K_V1]

    def offline(self, **settings) -> None:
        raise OSError('no network')

    monkeypatch.setattr(models.ResNet18_Weights, 'get_state_dict', offline)
    with pytest.raises(ValueError, match=r'resnet18-.*pth cannot be downloaded \(no network\); name a local file with weights='):
        build_teacher('torchvision://resnet18', None, ['layer1'])


def test_a_config_with_a_detectors_checkpoint(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'teacher.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
        'model = dict(backbone=dict(base_channels=4, stem_channels=4))\n')
    network = MODELS.build({'type': 'mmdet.ResNet', 'depth': 18, 'base_channels': 4, 'stem_channels': 4})
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in network.state_dict().items()}}, tmp_path / 'model.pth')
    teacher = build_teacher(str(tmp_path / 'teacher.py'), str(tmp_path / 'model.pth'), ['layer4'])
    torch.testing.assert_close(dict(teacher.network.named_parameters()), dict(network.named_parameters()), check_stride=False)
    assert teacher.normalization.rgb
    assert teacher.widths == {'layer4': 32}
    with pytest.raises(ValueError, match="the teacher's weights .* do not fit TwoStages"):
        build_teacher({'type': 'TwoStages'}, str(tmp_path / 'model.pth'), STAGES)


def test_shared_by_copies_and_absent_from_the_state():
    model = Student()
    model.distillation = make_term(model.layers, TwoStages(width=2))
    model.distillation.attach(model, model.layers)
    assert set(model.state_dict()) == set(Student().state_dict())
    assert {name for name, _ in model.named_parameters() if 'distillation' in name} == {
        'distillation.adapter_layer1', 'distillation.adapter_layer2'}
    model.load_state_dict(Student().state_dict())
    other = copy.deepcopy(model)
    assert other.distillation.teacher is model.distillation.teacher
    other(DATA.images[:2], DATA.targets[:2], mode='loss')['loss_distill'].backward()
    assert model.distillation.adapter_layer1.grad is None
    assert other.distillation.adapter_layer1.grad.abs().sum() > 0


@pytest.mark.parametrize(('settings', 'message'), [
    ({'loss': 'l1'}, "loss='l1', expected one of cosine, mse"),
    ({'schedule': 'step'}, "schedule='step', expected one of constant, linear, cosine"),
    ({'loss_weight': 0}, 'loss_weight=0, expected a positive number'),
    ({'end': 1.5}, 'end=1.5, expected a fraction of training'),
    ({'stages': []}, r"stages=\[\], expected names such as \['layer3', 'layer4'\]"),
    ({'stages': None}, 'stages=None, expected names'),
    ({'stages': {'layer4': 3}}, "stages={'layer4': 3}, expected names"),
    ({'teacher': ''}, "teacher='', expected 'torchvision://resnet50'"),
])
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=f'DistillationHook: {message}'):
        DistillationHook(**{'teacher': 'torchvision://resnet50', **settings})


@pytest.mark.parametrize(('settings', 'message'), [
    ({'student': 'backbone'}, "Student has no 'backbone'; name its backbone with student=..."),
    ({'stages': ['layer']}, "the teacher TwoStages has no stage 'layer'; did you mean layer2?"),
    ({'stages': {'stage1': 'layer1'}}, "the student TwoStages has no stage 'stage1'; it has layer1, layer2"),
    ({'weights': 'missing.pth'}, "the teacher's weights missing.pth: no such file"),
    ({'weights': None}, 'teacher: TwoStages would have random weights; name its checkpoint with weights=FILE'),
    ({'teacher': 'torchvision://resnet5O'}, "teacher: torchvision has no 'resnet5O'; did you mean resnet50?"),
    ({'teacher': 'torchvision://resnet18', 'weights': 'V1'}, "teacher: weights='V1' is neither a file nor one of IMAGENET1K_V1"),
    ({'teacher': 'missing.py'}, 'config missing.py not found'),
])
def test_mistakes_end_the_run_before_it_begins(tmp_path, teacher, settings, message):
    with pytest.raises(ValueError, match='DistillationHook: ') as error:
        make_runner(Student(), DATA, tmp_path, {**teacher, **settings}).train()
    assert message in str(error.value)


def test_stages_must_run_and_be_maps():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match=r'it: stage 1 does not return a feature map \(N, C, H, W\)'):
        stage_widths(network, ['1'], 'it')
    network = TwoStages()
    network.layer3 = nn.ReLU()
    with pytest.raises(ValueError, match='it: stage layer3 does not run'):
        stage_widths(network, ['layer3'], 'it')
    assert network.training
