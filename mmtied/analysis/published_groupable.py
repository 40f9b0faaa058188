"""What the paper on groupable convolution prints about its networks.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867, Tables 2, 3, 5 and 6. None of these accuracies was measured here.

The paper shows learned numbers of groups only as a picture (Figure 5). So the networks are counted at numbers of groups that meet
the resource bound and come near what is printed: parameters (Table 5), and multiply-adds of the 3x3 convolutions as a share of
ResNeXt-32x4d's (Table 3).
"""

from collections.abc import Sequence

from .systems import System, SystemDetector, SystemNetwork

#: Blocks in each stage.
_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def groups_of_blocks(depth: int, by_stage: Sequence[int]) -> tuple[int, ...]:
    """The groups of each block from those of each stage.

    Example:
        >>> groups_of_blocks(50, (16, 32, 64, 64))
        (16, 16, 16, 32, 32, 32, 32, 64, 64, 64, 64, 64, 64, 64, 64, 64)
    """
    return tuple(number for blocks, number in zip(_BLOCKS[depth], by_stage, strict=True) for _ in range(blocks))


def _frozen(depth: int, *by_stage: int) -> dict:
    return {'type': 'mmtied.GResNeXt', 'depth': depth, 'groups': groups_of_blocks(depth, by_stage)}


def _resnext(depth: int) -> dict:
    return {'type': 'mmpretrain.ResNeXt', 'depth': depth, 'groups': 32, 'width_per_group': 4}


_WHOLE = 'Table 2 prints whole millions; Table 3 has 22.1 and 20.9 as the errors of ResNeXt-50 and -101.'
_ACTIVE = ('Active parameters, with {} groups in the 3x3 convolutions of the four stages, which meets b = {}: the learned '
           'numbers are not printed. While it trains its weights are dense, {}.')
_DENSE = {50: '68.88M', 101: '126.89M'}
_TRAINED = 'Weights of the 3x3 convolutions counted as they train, dense.'


def _groupable(depth: int, b: int, table: str, by_stage: tuple[int, ...], params: float | None, error: float) -> SystemNetwork:
    numbers = ', '.join(map(str, by_stage))
    config = f'imagenet/gx{depth}_in1k' if b == 32 else f'imagenet/gx{depth}_b{b}_in1k'
    return SystemNetwork(f'G-ResNeXt-{depth}, b = {b}', table, _frozen(depth, *by_stage), config, params, None, error,
                         note=_ACTIVE.format(numbers, b, _DENSE[depth]))


_NETWORKS = (
    SystemNetwork('ResNeXt-50-32x4d', '2', _resnext(50), 'imagenet/x50_32x4d_in1k', 25, None, 22.2, note=_WHOLE),
    _groupable(50, 32, '2, 3, 6', (32, 32, 64, 32), 25, 21.6),
    _groupable(50, 96, '3, 6', (128, 128, 128, 128), None, 22.0),
    SystemNetwork('ResNeXt-101-32x4d', '2', _resnext(101), 'imagenet/x101_32x4d_in1k', 44, None, 21.2, note=_WHOLE),
    _groupable(101, 32, '2, 3, 5, 6', (16, 32, 64, 32), 43.3, 20.1),
    _groupable(101, 96, '3, 6', (128, 128, 128, 128), None, 20.5),
)

_DETECTORS = tuple(
    SystemDetector(f'{stem}_{network}_1x', method, name, '', note=_TRAINED if 'G-' in name else '')
    for stem, method in (('mask_rcnn', 'Mask R-CNN'), ('retinanet', 'RetinaNet'))
    for network, name in (('x50_32x4d', 'ResNeXt-50-32x4d'), ('gx50', 'G-ResNeXt-50'), ('x101_32x4d', 'ResNeXt-101-32x4d'),
                          ('gx101', 'G-ResNeXt-101')))

GROUPABLE_CONVOLUTION = System(
    title='Groupable Convolution',
    paper='Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks',
    url='https://arxiv.org/abs/1908.05867',
    text='[Its page](groupable_convolution.md) tells how groups are learned. A classifier\'s parameters are the active ones: '
         'those within groups, which are all that remains when `mmtied.surgery.freeze_groups` has made ordinary grouped '
         'convolutions of the learned ones. The gates, at most 10 a layer, are not counted. The paper prints no detectors.',
    networks=_NETWORKS,
    detectors=_DETECTORS)
