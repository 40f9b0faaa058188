"""The released networks with shared bases, built from the keys of their checkpoints with torch.nn.functional alone."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

#: By network: number of parameters, shape of each weight, and the names that are one tensor.
NETWORKS = json.loads((Path(__file__).parents[1] / 'data/shared_bases_checkpoints.json').read_text(encoding='utf-8'))


def random_weights(network: str, seed: int = 0) -> dict[str, Tensor]:
    """Return a state_dict of a released network with random values that keep activations in range."""
    torch.manual_seed(seed)
    weights = {}
    for key, shape in NETWORKS[network]['state_dict'].items():
        if key.endswith('num_batches_tracked'):
            weights[key] = torch.tensor(7)
        elif key.endswith('running_var'):
            weights[key] = torch.rand(shape) + 0.5
        elif len(shape) > 1:
            weights[key] = torch.randn(shape) / max(1, torch.Size(shape[1:]).numel())**0.5
        elif key.endswith('weight'):
            weights[key] = torch.rand(shape) * 0.5 + 0.5
        else:
            weights[key] = torch.randn(shape) * 0.3
    for first, *others in NETWORKS[network]['same_tensor']:
        weights.update({key: weights[first] for key in others})
    return weights


def forward(weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Return the output of each stage ('layer1' to 'layer4', or the last map as 'last') and the logits as 'logits'."""
    return _mobilenet(weights, x) if 'pre.0.weight' in weights else _resnet(weights, x)


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    values = (weights[f'{name}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
    return F.batch_norm(x, *values)


def _resnet(weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    block = _basic_block if 'layer1.1.basis_conv1.weight' in weights else _bottleneck
    outputs = {}
    x = F.relu(_norm(weights, 'bn1', F.conv2d(x, weights['conv1.weight'], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        index = 0
        while f'layer{stage}.{index}.bn1.weight' in weights:
            x = block(weights, stage, index, x)
            index += 1
        outputs[f'layer{stage}'] = x
    outputs['logits'] = F.linear(x.mean((2, 3)), weights['fc.weight'], weights['fc.bias'])
    return outputs


def _shortcut(weights: dict[str, Tensor], name: str, stride: int, x: Tensor) -> Tensor:
    if f'{name}.shortcut.0.weight' not in weights:
        return x
    return _norm(weights, f'{name}.shortcut.1', F.conv2d(x, weights[f'{name}.shortcut.0.weight'], stride=stride))


def _bottleneck(weights: dict[str, Tensor], stage: int, index: int, x: Tensor) -> Tensor:
    name, stride = f'layer{stage}.{index}', 2 if stage > 1 and index == 0 else 1
    if index == 0:
        middle, last = weights[f'{name}.conv2.weight'], weights[f'{name}.conv3.weight']
    elif f'shared_basis_{stage}_1.weight' in weights:
        middle, last = weights[f'shared_basis_{stage}_1.weight'], weights[f'shared_basis_{stage}_2.weight']
    else:
        middle, last = weights[f'shared_basis_{stage}.weight'], weights[f'{name}.conv3.weight']
    out = F.relu(_norm(weights, f'{name}.bn1', F.conv2d(x, weights[f'{name}.conv1.weight'])))
    out = F.relu(_norm(weights, f'{name}.bn2', F.conv2d(out, middle, stride=stride, padding=1)))
    out = _norm(weights, f'{name}.bn3', F.conv2d(out, last))
    return F.relu(out + _shortcut(weights, name, stride, x))


def _basic_block(weights: dict[str, Tensor], stage: int, index: int, x: Tensor) -> Tensor:
    name, stride = f'layer{stage}.{index}', 2 if stage > 1 and index == 0 else 1
    out = x
    for n in (1, 2):
        if index == 0:
            out = F.conv2d(out, weights[f'{name}.conv{n}.weight'], stride=stride if n == 1 else 1, padding=1)
        else:
            elements = torch.cat([F.conv2d(out, weights[key], padding=1) for key in
                                  (f'{name}.basis_conv{n}.weight', f'shared_basis_{stage}_{n}.weight')], 1)
            out = F.conv2d(_norm(weights, f'{name}.basis_bn{n}', elements), weights[f'{name}.coeff_conv{n}.weight'])
        out = _norm(weights, f'{name}.bn{n}', out)
        out = F.relu(out) if n == 1 else out
    return F.relu(out + _shortcut(weights, name, stride, x))


def _mobilenet(weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    x = F.conv2d(x, weights['pre.0.weight'], weights['pre.0.bias'], stride=2, padding=1)
    x = F.relu6(_norm(weights, 'pre.1', x))
    for stage, blocks, stride in ((1, 0, 1), (2, 2, 2), (3, 3, 2), (4, 4, 2), (5, 3, 1), (6, 3, 2), (7, 0, 1)):
        for index in range(blocks or 1):
            name = f'stage{stage}.{index}' if blocks else f'stage{stage}'
            x = _inverted_residual(weights, name, stage - 2, index > 0, stride if index == 0 else 1, x)
    x = F.conv2d(x, weights['conv1.0.weight'], weights['conv1.0.bias'])
    x = F.relu6(_norm(weights, 'conv1.1', x))
    logits = F.linear(x.mean((2, 3)), weights['classifier.1.weight'], weights['classifier.1.bias'])
    return {'last': x, 'logits': logits}


def _inverted_residual(weights: dict[str, Tensor], name: str, number: int, later: bool, stride: int, x: Tensor) -> Tensor:
    def own_or_shared(conv: int, *bases: str) -> Tensor:
        return next(weights[key] for key in (f'{name}.conv{conv}.weight', *bases) if key in weights)

    out = F.conv2d(x, own_or_shared(1, f'shared_basis_{number}.weight', f'shared_basis_{number}_1.weight'))
    out = F.relu(_norm(weights, f'{name}.bn1', out))
    out = F.conv2d(out, weights[f'{name}.conv2.weight'], stride=stride, padding=1, groups=out.shape[1])
    out = F.relu(_norm(weights, f'{name}.bn2', out))
    out = _norm(weights, f'{name}.bn3', F.conv2d(out, own_or_shared(3, f'shared_basis_{number}_2.weight')))
    attention = f'{name}.chan_attention.conv.weight'
    if attention in weights:
        out = out * _attention(weights[attention], out)
    return x + out if later else out


def _attention(kernel: Tensor, x: Tensor) -> Tensor:
    """Scale of each channel, from the means of its neighbors, written out as a sum."""
    means, width = x.mean((2, 3)), kernel.shape[-1]
    padded = F.pad(means, (width // 2, width // 2))
    combined = sum(kernel[0, 0, k] * padded[:, k:k + means.shape[1]] for k in range(width))
    return torch.sigmoid(combined)[:, :, None, None]


def checkpoint(weights: dict[str, Tensor], prefix: str = '') -> dict:
    """Return a checkpoint as the authors' training script saves it."""
    optimizer = {'state': {}, 'param_groups': [{'lr': 0.001, 'params': [0]}]}
    return {'net_state_dict': {prefix + key: value for key, value in weights.items()}, 'optimizer_state_dict': optimizer,
            'acc': torch.tensor(76.36), 'epoch': 141}
