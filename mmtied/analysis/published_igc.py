"""What the paper on interleaved group convolutions prints about its networks.

Zhang et al., "Interleaved Group Convolutions for Deep Neural Networks", ICCV 2017, https://arxiv.org/abs/1707.02725, Tables 3 to
7. None of these accuracies was measured here.
"""

from .systems import System, SystemDetector, SystemNetwork


def _igc(base_channels: int, conv_cfg: dict, **settings) -> dict:
    return {'type': 'mmtied.IGCNet', 'base_channels': base_channels, 'conv_cfg': conv_cfg, **settings}


def _cifar(depth: int, base_channels: int, conv_cfg: dict | None) -> dict:
    return {'type': 'mmtied.IGCNetCIFAR', 'depth': depth, 'base_channels': base_channels, 'conv_cfg': conv_cfg}


def _by_primary(num_primary: int) -> dict | None:
    return {'type': 'IGC', 'num_primary': num_primary} if num_primary else None


_LAYERS = 'Printed without normalisation layers, and counted so.'
_CIFAR = f'{_LAYERS} The error is on CIFAR-10.'
_BACKBONE = 'Printed without normalisation layers and without the classifier, and counted so.'
_C69 = f'{_BACKBONE} The printed 11.333M cannot be the size with 69 channels; the printed multiply-adds fit them.'
_L4M32 = f'{_BACKBONE} With projections in four groups where the shape changes; the paper does not say what it has there.'
_L16M16 = 'Printed without the classifier, and counted so. Where the shape changes zeros are appended; with projections in 16 ' \
          'groups it would have 11.48M.'
_L100M2 = 'Printed with the classifier, unlike the rows above it, and without normalisation layers; counted so. The printed ' \
          'multiply-adds are fewer than any network of this plan has.'

# Name, config, width and L (0 for ordinary convolutions); parameters in millions, multiply-adds in billions (Table 3) and top-1
# error on CIFAR-10 (Table 4) by depth.
_TABLE_3 = {
    ('RegConv-W16', 'regconv_w16', 16, 0): (
        (8, 0.075, 0.0122, 10.54), (20, 0.27, 0.0406, 7.76), (38, 0.56, 0.083, 9.23), (62, 0.95, 0.14, 11.78),
        (98, 1.53, 0.225, None)),
    ('RegConv-W18', 'regconv_w18', 18, 0): (
        (8, 0.095, 0.0154, 9.70), (20, 0.34, 0.0513, 7.45), (38, 0.71, 0.105, 8.43), (62, 1.20, 0.177, 11.40),
        (98, 1.93, 0.284, None)),
    ('IGC-L4M8', 'igc_l4m8', 32, 4): (
        (8, 0.078, 0.0131, 10.11), (20, 0.27, 0.0424, 7.46), (38, 0.57, 0.0862, 7.95), (62, 0.96, 0.145, 10.77),
        (98, 1.56, 0.232, None)),
    ('IGC-L24M2', 'igc_l24m2', 48, 24): (
        (8, 0.047, 0.0099, 9.69), (20, 0.15, 0.0288, 7.16), (38, 0.31, 0.0571, 7.76), (62, 0.52, 0.0948, 9.97),
        (98, 0.83, 0.151, None)),
}
_SMALL = {'size': 32, 'note': _CIFAR, 'counts': 'layers'}

_NETWORKS = (
    SystemNetwork('ResNet (C = 64)', '6', _igc(64, None, shortcut_groups=1), 'imagenet/r18_95e_in1k', 11.151, 1.8, 31.06,
                  channels=512, counts='backbone layers', note=_BACKBONE),
    SystemNetwork('ResNet (C = 69)', '6', _igc(69, None, shortcut_groups=1), 'imagenet/r18_c69_95e_in1k', 11.333, 2.1, 30.58,
                  channels=552, counts='backbone layers', note=_C69),
    SystemNetwork('IGC-L4M32 + Ident.', '6', _igc(128, _by_primary(4), shortcut_groups=4), 'imagenet/igc_l4m32_in1k', 11.205, 1.9,
                  30.77, channels=1024, counts='backbone layers', note=_L4M32),
    SystemNetwork('IGC-L16M16 + Ident.', '6', _igc(256, _by_primary(16)), 'imagenet/igc_l16m16_in1k', 11.329, 2.2, 29.40,
                  channels=2048, counts='backbone', note=_L16M16),
    SystemNetwork('IGC-L100M2 + Ident.', '6', _igc(200, {'type': 'IGC', 'num_secondary': 2}), 'imagenet/igc_l100m2_in1k', 8.61,
                  1.3, 26.95, channels=1600, counts='layers', note=_L100M2),
    *(SystemNetwork(f'{name}, depth {depth}', '3, 4' if error else '3', _cifar(depth, width, _by_primary(num_primary)),
                    f'cifar/{config}_d{depth}_cifar10', params, multiply_adds, error, channels=4 * width, classes=10, **_SMALL)
      for (name, config, width, num_primary), rows in _TABLE_3.items() for depth, params, multiply_adds, error in rows),
    SystemNetwork('SumFusion, depth 20', '4', _cifar(20, 8, {'type': 'SumFusion', 'num_branches': 4}),
                  'cifar/sumfusion_d20_cifar10', error=11.29, channels=32, classes=10, size=32, counts='layers',
                  note=f'{_CIFAR} The branches are summed as filters, which takes a quarter of their multiply-adds.'),
    SystemNetwork('IGC-L24M2, depth 20 (CIFAR-100)', '4', _cifar(20, 48, _by_primary(24)), 'cifar/igc_l24m2_d20_cifar100',
                  error=29.46, channels=192, classes=100, size=32, counts='layers', note=_LAYERS),
    SystemNetwork('RegConv-W16, depth 20 (CIFAR-100)', '4', _cifar(20, 16, None), 'cifar/regconv_w16_d20_cifar100',
                  error=32.10, channels=64, classes=100, size=32, counts='layers', note=_LAYERS),
    *(SystemNetwork(f'{name} + Ident., depth 50', '5', {**_cifar(50, width, _by_primary(num_primary)), 'identity': True},
                    f'cifar/{config}_d50_ident_cifar10', error=error, channels=4 * width, classes=10, **_SMALL)
      for (name, config, width, num_primary), error in zip(_TABLE_3, (5.60, 5.33, 5.26, 5.12), strict=True)),
    *(SystemNetwork(f'{name} (CIFAR-100)', '7', _cifar(20, width, _by_primary(num_primary)), config, params, error=error,
                    channels=4 * width, classes=100, size=32, counts='layers', note=_LAYERS)
      for name, width, num_primary, config, params, error in (
          ('IGC-L16M32', 512, 16, '', 17.7, 19.31), ('IGC-L450M2', 900, 450, '', 19.3, 19.25),
          ('IGC-L32M26', 832, 32, 'cifar/igc_l32m26_d20_cifar100', 24.1, 18.75))),
    SystemNetwork('IGC-L32M26 (CIFAR-10)', '7', _cifar(20, 832, _by_primary(32)), 'cifar/igc_l32m26_d20_cifar10', error=3.31,
                  channels=3328, classes=10, size=32, counts='layers', note=_LAYERS),
)

_OURS = 'Not in the paper: the backbone of its Table 6 in a detector.'
_DETECTORS = tuple(SystemDetector(f'{stem}_{network}_1x', method, name, '', note=_OURS if 'igc' in network else '')
                   for stem, method in (('mask_rcnn', 'Mask R-CNN'), ('retinanet', 'RetinaNet'))
                   for network, name in (('r18', 'ResNet (C = 64)'), ('igc_l100m2', 'IGC-L100M2 + Ident.')))

INTERLEAVED_GROUP_CONVOLUTION = System(
    title='Interleaved Group Convolution',
    paper='Interleaved Group Convolutions for Deep Neural Networks',
    url='https://arxiv.org/abs/1707.02725',
    text='The networks, and their sizes with and without classifier and normalisation layers, are on '
         '[their page](interleaved_group_convolution.md). The paper counts neither all nor alike: here each is counted as its '
         'printed figure is, which the notes say.',
    networks=_NETWORKS,
    detectors=_DETECTORS)
