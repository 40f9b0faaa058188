"""Convert the checkpoints that the paper's authors released (https://github.com/ssregibility/Net_RL2).

The six ImageNet networks are `SharedResNet` and `SharedMobileNetV2` under other names. Their checkpoints contain each basis once
under the model and again under every block that uses it, and a basic block's own elements precede the shared ones. The biases
before two of MobileNetV2's normalizations are folded into the running means, which does not change the outputs.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

_SHARED = re.compile(r'shared_basis_(\d)(?:_([12]))?\.weight')
#: Parts of a block by number.
_BOTTLENECK = {'1': 'entry', '2': 'spatial', '3': 'exit'}
_BASIC = {'1': 'entry', '2': 'exit'}
#: MobileNetV2's first stage that shares, minus the number of its basis.
_FIRST_SHARING_STAGE = 2


def is_released(keys: Iterable[str]) -> bool:
    """Return whether a state_dict's keys are those of a released network."""
    return any(_SHARED.fullmatch(key) for key in keys)


def convert_released(weights: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Rename the weights of a released network, without the prefix 'module.', to those of an mmpretrain classifier.

    Returns:
        The config of the matching backbone, and the weights, named ``backbone.*`` and ``head.fc.*``.

    Raises:
        ValueError: A key is unknown, or the copies of a basis differ.
    """
    mobile = 'pre.0.weight' in weights
    basic = any('.basis_conv' in key for key in weights)
    rename = _rename_mobilenet if mobile else lambda key: _rename_resnet(key, _BASIC if basic else _BOTTLENECK)
    _check_copies(weights)
    converted = {}
    for key, value in weights.items():
        if '.shared_basis' in key or (mobile and key in ('pre.0.bias', 'conv1.0.bias')):
            continue
        name = rename(key)
        if name is None:
            raise ValueError(f'weights {key} of shape {tuple(value.shape)} do not belong to a released network; expected '
                             'ResNet34-SsUu, ResNet50/101-Shared or MobileNetV2-Shared on ImageNet')
        converted[name] = value
    if mobile:
        for norm, bias in (('conv1.bn', 'pre.0.bias'), ('conv2.bn', 'conv1.0.bias')):
            mean = f'backbone.{norm}.running_mean'
            if mean in converted and bias in weights:
                converted[mean] = converted[mean] - weights[bias]
    if basic:
        _put_shared_elements_first(converted)
    return _backbone_of(weights, mobile, basic), converted


def _backbone_of(weights: Mapping[str, Tensor], mobile: bool, basic: bool) -> dict:
    """Return the config of the backbone."""
    num_bases = 2 if 'shared_basis_1_2.weight' in weights else 1
    if mobile:
        return {'type': 'mmtied.SharedMobileNetV2', 'num_bases': num_bases, 'released': True}
    if basic:
        shared, unique = (next((len(value) for key, value in weights.items() if re.fullmatch(name, key) and value.dim()), 1)
                          for name in (r'shared_basis_1(_1)?\.weight', r'layer1\.1\.basis_conv1\.weight'))
        return {'type': 'mmtied.SharedResNet', 'depth': 34, 'num_bases': num_bases, 'shared_elements': shared,
                'unique_elements': unique}
    return {'type': 'mmtied.SharedResNet', 'depth': 101 if 'layer3.22.conv1.weight' in weights else 50, 'num_bases': num_bases}


def _check_copies(weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if a block's copy of a basis differs from the model's."""
    for key, value in weights.items():
        match = re.fullmatch(r'(?:layer|stage)(\d)\.\d+\.shared_basis_?(\d?)\.weight', key)
        if match is None:
            continue
        stage, number = match.groups()
        if key.startswith('stage'):
            stage = str(int(stage) - _FIRST_SHARING_STAGE)
        names = (f'shared_basis_{stage}_{number}.weight', f'shared_basis_{stage}.weight')
        basis = next((name for name in names if name in weights), None)
        if basis is None or not torch.equal(weights[basis], value):
            raise ValueError(f'{key} differs from {basis or names[0]} but should be the same basis; the checkpoint is not from a '
                             'released network')


def _rename_resnet(key: str, parts: Mapping[str, str]) -> str | None:
    """Return the new name of a ResNet weight, or None for an unknown key."""
    bases = {None: 'entry', **parts} if parts is _BASIC else {None: 'middle', '1': 'middle', '2': 'exit'}
    number = f'([{"".join(parts)}])'
    return _rename(key, [
        (r'conv1\.weight', lambda: 'stem.conv.weight'),
        (r'bn1\.(\w+)', lambda name: f'stem.bn.{name}'),
        (_SHARED.pattern, lambda stage, role: f'layer{stage}.bases.{bases[role]}.weight'),
        (rf'(layer\d\.\d+)\.conv{number}\.weight', lambda block, n: f'{block}.{parts[n]}.conv.weight'),
        (rf'(layer\d\.\d+)\.bn{number}\.(\w+)', lambda block, n, name: f'{block}.{parts[n]}.bn.{name}'),
        (rf'(layer\d\.\d+)\.basis_conv{number}\.weight', lambda block, n: f'{block}.{parts[n]}.conv.unique.weight'),
        (rf'(layer\d\.\d+)\.basis_bn{number}\.(\w+)', lambda block, n, name: f'{block}.{parts[n]}.conv.norm.{name}'),
        (rf'(layer\d\.\d+)\.coeff_conv{number}\.weight', lambda block, n: f'{block}.{parts[n]}.conv.coefficients.weight'),
        (r'(layer\d\.\d+)\.shortcut\.0\.weight', lambda block: f'{block}.shortcut.conv.weight'),
        (r'(layer\d\.\d+)\.shortcut\.1\.(\w+)', lambda block, name: f'{block}.shortcut.bn.{name}'),
    ], r'fc\.(\w+)')


def _rename_mobilenet(key: str) -> str | None:
    """Return the new name of a MobileNetV2 weight, or None for an unknown key."""
    roles = {None: 'expand', '1': 'expand', '2': 'project'}

    def layer(kind: str) -> Callable[..., str]:
        return lambda stage, block, n, name: f'layer{stage}.{block or 0}.conv.{int(n) - 1}.{kind}.{name}'

    return _rename(key, [
        (r'pre\.0\.weight', lambda: 'conv1.conv.weight'),
        (r'pre\.1\.(\w+)', lambda name: f'conv1.bn.{name}'),
        (r'conv1\.0\.weight', lambda: 'conv2.conv.weight'),
        (r'conv1\.1\.(\w+)', lambda name: f'conv2.bn.{name}'),
        (_SHARED.pattern, lambda n, role: f'layer{int(n) + _FIRST_SHARING_STAGE}.bases.{roles[role]}.weight'),
        (r'stage(\d)(?:\.(\d))?\.conv(\d)\.(weight)', layer('conv')),
        (r'stage(\d)(?:\.(\d))?\.bn(\d)\.(\w+)', layer('bn')),
        (r'stage(\d)\.(\d)\.chan_attention\.conv\.weight', lambda stage, block: f'layer{stage}.{block}.conv.3.conv.weight'),
    ], r'classifier\.1\.(\w+)')


def _rename(key: str, rules: Iterable[tuple[str, Callable[..., str]]], head: str) -> str | None:
    match = re.fullmatch(head, key)
    if match:
        return f'head.fc.{match[1]}'
    for pattern, name in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return f'backbone.{name(*match.groups())}'
    return None


def _put_shared_elements_first(converted: dict[str, Tensor]) -> None:
    """Move the own elements of each combined convolution behind the shared ones, in its normalization and coefficients."""
    for key in [key for key in converted if key.endswith('.conv.unique.weight')]:
        layer, own = key.removesuffix('.unique.weight'), len(converted[key])
        for name in [name for name in converted if name.startswith(f'{layer}.norm.') and converted[name].dim()]:
            converted[name] = converted[name].roll(-own, 0)
        coefficients = f'{layer}.coefficients.weight'
        if coefficients in converted and converted[coefficients].dim() == 4:
            converted[coefficients] = converted[coefficients].roll(-own, 1)
