"""Distillation: a backbone imitates the feature maps of a trained one, during or before training on its own task.

Before the run, `DistillationHook` adds a submodule, `Distillation`, that adds ``loss_distill`` to the model's losses in its
forward, so mixed precision, gradient accumulation and DistributedDataParallel handle the term like any other. Adapters join a
parameter group of the optimizer, and a distributed model is wrapped again to register them.
"""

import gc
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmtied.arguments import suggest_arguments
from mmtied.compat import unwrap_model
from mmtied.torch_compat import remove_reducer_hooks

from .loss_hook import is_number
from .teacher import Normalization, Teacher, build_teacher, stage_widths

#: Name of the submodule during training, and of the adapters' entry in a checkpoint.
_NAME = 'distillation'


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 minus the cosine similarity between two feature maps (N, C, H, W) along the channels, averaged over positions.

    The result is a scalar in [0, 2] that does not depend on the scale of either map.

    Example:
        >>> x = torch.ones(1, 2, 3, 3)
        >>> round(cosine_distance(3 * x, x).item(), 4)
        0.0
    """
    return 1 - F.cosine_similarity(student, teacher, dim=1).mean()


def unexplained_variance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error between two feature maps (N, C, H, W), divided by the variance of the second.

    A student that predicts the mean of each channel over images and positions has 1.

    Example:
        >>> x = torch.rand(2, 4, 3, 3)
        >>> round(unexplained_variance(x.mean((0, 2, 3), keepdim=True), x).item(), 4)
        1.0
    """
    variance = (teacher - teacher.mean((0, 2, 3), keepdim=True)).square().mean()
    return (student - teacher).square().mean() / variance.clamp(min=1e-12)


#: Losses by name.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {'cosine': cosine_distance, 'mse': unexplained_variance}


class Distillation(nn.Module):
    """Adapters, and the distances between the stages of a student and of a teacher.

    A model neither saves nor loads this submodule: its state_dict is that of the model without distillation.

    Args:
        student: A backbone in the model.
        teacher: The teacher; its stages are the values of `stages`.
        stages: The teacher's stage for each stage of the student.
        distance: Takes two feature maps of one shape and returns a scalar. The loss is its mean over the stages, times the
            attribute `loss_weight`; with 0 the teacher does not run.

    Example:
        >>> student, network = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> term = Distillation(student, Teacher(network, ['0']), {'0': '0'}, cosine_distance)
        >>> term.adapters()['0'].shape
        torch.Size([8, 4, 1, 1])
    """

    def __init__(self, student: nn.Module, teacher: Teacher, stages: dict[str, str],
                 distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.teacher = teacher
        self.stages = stages
        self.distance = distance
        self.loss_weight = 1.
        like = next(student.parameters())
        self.widths = stage_widths(student, list(stages), f'the student {type(student).__name__}')
        for stage, width in self.widths.items():
            if width != teacher.widths[stages[stage]]:
                weight = torch.empty(teacher.widths[stages[stage]], width, 1, 1)
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                self.register_parameter(_parameter_name(stage), nn.Parameter(weight.to(like)))
        self._features: dict[str, Tensor] = {}
        self._images: Tensor | None = None

    def adapters(self) -> dict[str, nn.Parameter]:
        """Return the weights of the 1x1 convolutions from the student's width to the teacher's, by student stage."""
        return {stage: self._parameters[_parameter_name(stage)] for stage in self.stages
                if _parameter_name(stage) in self._parameters}

    def forward(self, images: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Compute the distance at each stage, in float32: shape (stages,), in the order of `stages`.

        Args:
            images: The student's input, (N, 3, H, W).
            features: Output of each student stage, (N, C, H, W). Teacher maps of another size are resized.
        """
        targets, adapters, distances = self.teacher(images), self.adapters(), []
        for stage, output in features.items():
            if stage in adapters:
                output = F.conv2d(output, adapters[stage].to(output.dtype))  # noqa: PLW2901
            target = targets[self.stages[stage]].float()
            if target.shape[2:] != output.shape[2:]:
                target = F.interpolate(target, output.shape[2:], mode='bilinear', align_corners=False)
            with torch.autocast(output.device.type, enabled=False):
                distances.append(self.distance(output.float(), target))
        return torch.stack(distances)

    def attach(self, model: nn.Module, student: nn.Module) -> None:
        """Let the model, which contains this module and the student, add ``loss_distill`` to its losses in training."""
        parts = {stage: student.get_submodule(stage) for stage in self.stages}
        self._handles = [student.register_forward_pre_hook(self._start),
                         *(part.register_forward_hook(partial(self._keep, stage)) for stage, part in parts.items()),
                         model.register_forward_hook(self._add_loss, with_kwargs=True)]

    def detach(self) -> None:
        """Undo `attach`."""
        for handle in self._handles:
            handle.remove()

    def _start(self, student: nn.Module, args: tuple) -> None:
        if self.training:
            self._images, self._features = args[0], {}

    def _keep(self, stage: str, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.training and self._images is not None:
            self._features[stage] = output

    def _add_loss(self, model: nn.Module, args: tuple, kwargs: dict, output: dict) -> dict | None:
        images, features, self._images, self._features = self._images, self._features, None, {}
        if not self.training or kwargs.get('mode', 'loss') != 'loss' or not isinstance(output, dict):
            return None
        if len(features) < len(self.stages):
            raise ValueError(f'DistillationHook: {type(model).__name__} computed its losses without running its student')
        if self.loss_weight:
            features = {stage: features[stage] for stage in self.stages}
            term = self.loss_weight * self(images, features).mean()
        else:  # a zero gradient, because DistributedDataParallel waits for one
            term = 0. * sum((weight.sum() for weight in self.parameters()), images.new_zeros(()))
        return {**output, 'loss_distill': term}

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Save nothing; `DistillationHook` saves the adapters elsewhere."""

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Load nothing, and report nothing as missing."""


@HOOKS.register_module()
@suggest_arguments
class DistillationHook(Hook):
    """Make a model's backbone imitate the stages of a frozen teacher; the loss is logged as ``loss_distill``.

    The term is ``loss_weight`` times the mean, over the stages, of a distance between the student's and the teacher's feature
    maps. If their widths differ, a 1x1 convolution without bias, trained with the model, maps the student's to the teacher's.

    Checkpoints have the weights of the model alone and load without this hook; the adapters are saved beside them, under
    ``distillation``, for resumed runs. The hook does not change the random numbers of a run (initial weights, order of images).

    The teacher sees the student's augmented images. If both normalizations are known and differ (mean, standard deviation, RGB
    or BGR), the images are renormalized for the teacher.

    Args:
        teacher: ``'torchvision://resnet50'``, a config (a file or ``'mmdet::...'``) with a ``model.backbone``, or the settings of
            a backbone.
        weights: The teacher's checkpoint, a file or URL, of the backbone or the whole model; for torchvision also the name of its
            weights. Default: torchvision's IMAGENET1K_V1, which it downloads, or the weights in the config's ``init_cfg``.
        stages: Names of submodules of both backbones, or a dict from the student's to the teacher's.
        loss: 'cosine', 1 minus the cosine similarity of the channels at each position; or 'mse', the squared error divided by the
            variance of the teacher's map, which also fits its scale.
        loss_weight: Weight at the start of training, positive.
        schedule: 'constant', or a 'linear' or 'cosine' decay to 0.
        end: Fraction of training, above 0 and up to 1, after which the weight is 0 and the teacher does not run.
        student: Name of the backbone in the model.

    Raises:
        ValueError: A setting is wrong, or, before the run, the teacher, its weights or a stage does not exist or fit.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.DistillationHook', teacher='torchvision://resnet50')]``.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, teacher: str | dict, weights: str | None = None,
                 stages: Sequence[str] | dict[str, str] = ('layer1', 'layer2', 'layer3', 'layer4'), loss: str = 'cosine',
                 loss_weight: float = 1., schedule: str = 'constant', end: float = 1., student: str = 'backbone') -> None:
        if not teacher or not isinstance(teacher, str | dict):
            raise ValueError(f"DistillationHook: teacher={teacher!r}, expected 'torchvision://resnet50', a config, or the "
                             'settings of a backbone')
        for name, value, choices in (('loss', loss, tuple(DISTANCES)), ('schedule', schedule, ('constant', 'linear', 'cosine'))):
            if value not in choices:
                raise ValueError(f'DistillationHook: {name}={value!r}, expected one of {", ".join(choices)}')
        if not is_number(loss_weight) or not loss_weight > 0:
            raise ValueError(f'DistillationHook: loss_weight={loss_weight!r}, expected a positive number')
        if not is_number(end) or not 0 < end <= 1:
            raise ValueError(f'DistillationHook: end={end!r}, expected a fraction of training above 0 and up to 1')
        names = [stages] if isinstance(stages, str) else stages or ()
        pairs = dict(stages) if isinstance(stages, dict) else {name: name for name in names}
        if not pairs or not all(isinstance(name, str) for pair in pairs.items() for name in pair):
            raise ValueError(f"DistillationHook: stages={stages!r}, expected names such as ['layer3', 'layer4'], or a dict from "
                             "the student's to the teacher's")
        self.teacher, self.weights, self.stages, self.loss = teacher, weights, pairs, loss
        self.loss_weight, self.schedule, self.end, self.student = loss_weight, schedule, end, student

    def weight_at(self, progress: float) -> float:
        """Return the weight of the term after a fraction of training.

        Example:
            >>> hook = DistillationHook('torchvision://resnet50', schedule='linear', end=.5)
            >>> [hook.weight_at(progress) for progress in (0, .25, .5, 1)]
            [1.0, 0.5, 0.0, 0.0]
        """
        left = max(0., 1 - progress / self.end)
        shape = {'constant': float(left > 0), 'linear': left, 'cosine': (1 - math.cos(math.pi * left)) / 2}
        return self.loss_weight * shape[self.schedule]

    def before_run(self, runner: Runner) -> None:
        """Build the teacher and the adapters; does nothing for a test or when called again."""
        if not isinstance(runner.optim_wrapper, OptimWrapper) or runner.iter >= runner.max_iters:
            return
        model = unwrap_model(runner.model)
        if isinstance(getattr(model, _NAME, None), Distillation):
            return
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            raise ValueError(f'DistillationHook: the model is wrapped in {type(runner.model).__name__}; use '
                             'DistributedDataParallel')
        try:
            student = model.get_submodule(self.student)
        except AttributeError:
            raise ValueError(f'DistillationHook: {type(model).__name__} has no {self.student!r}; name its backbone with '
                             'student=...') from None
        with torch.random.fork_rng(devices=[]):
            try:
                teacher = build_teacher(self.teacher, self.weights, list(self.stages.values()))
                term = Distillation(student, teacher, self.stages, DISTANCES[self.loss])
            except ValueError as error:
                raise ValueError(f'DistillationHook: {error}') from error
        teacher.student_normalization = Normalization.of_model(model)
        setattr(model, _NAME, term)
        if term.adapters():
            _main_group(runner.optim_wrapper)['params'].extend(term.parameters())
            if is_model_wrapper(runner.model):
                remove_reducer_hooks(runner.model)
                runner.model = model
                gc.collect()
                runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), model)
        term.attach(model, student)
        runner.logger.info(f'DistillationHook: {self._describe(term)}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the weight."""
        getattr(unwrap_model(runner.model), _NAME).loss_weight = self.weight_at(runner.iter / runner.max_iters)

    def after_train(self, runner: Runner) -> None:
        """Remove the submodule and its parameters."""
        model = unwrap_model(runner.model)
        term = getattr(model, _NAME)
        term.detach()
        delattr(model, _NAME)
        ours = {id(weight) for weight in term.parameters()}
        for group in runner.optim_wrapper.optimizer.param_groups:
            group['params'] = [weight for weight in group['params'] if id(weight) not in ours]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the adapters beside the weights."""
        term = getattr(unwrap_model(runner.model), _NAME, None)
        if term is not None and term.adapters():
            checkpoint[_NAME] = {stage: weight.detach().cpu() for stage, weight in term.adapters().items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Resume the adapters."""
        term = getattr(unwrap_model(runner.model), _NAME, None)
        if term is None or not runner._resume:
            return
        saved, own = checkpoint.get(_NAME, {}), term.adapters()
        shapes = [{stage: tuple(weight.shape) for stage, weight in weights.items()} for weights in (saved, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(f'DistillationHook: the checkpoint has adapters {shapes[0]}, this run {shapes[1]}; resume with the '
                             'teacher and stages of the checkpoint, or start from its weights with load_from')
        with torch.no_grad():
            for stage, weight in own.items():
                weight.copy_(saved[stage])

    def _describe(self, term: Distillation) -> str:
        teacher = term.teacher
        stages = ', '.join(f'{mine} ({term.widths[mine]} channels) -> {theirs} ({teacher.widths[theirs]})'
                           for mine, theirs in term.stages.items())
        mine, theirs = teacher.normalization, teacher.student_normalization
        images = "images normalized as the student's"
        if mine is None or theirs is None:
            images += f', because that of the {"teacher" if mine is None else "student"} is unknown'
        elif not mine.matches(theirs):
            images = f'images renormalized, from {theirs} to {mine}'
        return f'{self.loss} distance to {teacher.name} at {stages}; {images}'


def _parameter_name(stage: str) -> str:
    return f'adapter_{stage.replace(".", "_")}'


def _main_group(optim_wrapper: OptimWrapper) -> dict:
    """Return the parameter group with the optimizer's default learning rate and weight decay, or else the first."""
    optimizer = optim_wrapper.optimizer

    def own(group: dict) -> tuple[bool, bool]:
        return (group.get('initial_lr', group['lr']) == optimizer.defaults['lr'],
                group.get('weight_decay') == optimizer.defaults.get('weight_decay'))

    return max(optimizer.param_groups, key=own)
