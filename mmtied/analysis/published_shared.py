"""What the paper on shared filter bases prints about its networks and detectors.

Kang & Kim, "Deeply Shared Filter Bases", NeurIPS 2021, https://arxiv.org/abs/2006.05066, Tables 1 to 5. None of these accuracies
was measured here.
"""

from .systems import System, SystemDetector, SystemNetwork


def _shared(depth: int, num_bases: int = 1, **settings) -> dict:
    return {'type': 'mmtied.SharedResNet', 'depth': depth, 'num_bases': num_bases, **settings}


def _mobile(num_bases: int) -> dict:
    return {'type': 'mmtied.SharedMobileNetV2', 'num_bases': num_bases}


def _cifar(depth: int, num_bases: int, **settings) -> dict:
    return {'type': 'mmtied.SharedResNetCIFAR', 'depth': depth, 'num_bases': num_bases, **settings}


_NET34 = {'channels': 512}
_MOBILE = {'channels': 1280}
_CIFAR100 = {'channels': 512, 'classes': 100, 'size': 32}
_CIFAR10 = {'channels': 64, 'classes': 10, 'size': 32, 'note': 'Table 3 cuts its parameters off after two digits. Its '
            'multiply-adds fit but for the 0.16G of ResNet-56.'}
_S48U1 = 'With one basis in each stage it would have 9.44M; the printed size fits two.'
_SECOND = 'The second basis is the projection. The text names the first two convolutions of a block, of which the second is ' \
          'the depthwise one; the printed size fits the projection.'

_NETWORKS = (
    SystemNetwork('ResNet-34', '1', _shared(34, 0), 'imagenet/r34_150e_in1k', 21.80, 3.67, 26.70, **_NET34),
    SystemNetwork('ResNet-34-S48U1', '1', _shared(34, 2, shared_elements=48), 'imagenet/sharedr34_s48u1_in1k', 11.79, 3.26, 26.67,
                  note=_S48U1, **_NET34),
    SystemNetwork('ResNet-50', '1', _shared(50, 0), 'imagenet/r50_150e_in1k', 25.56, 4.11, 23.85),
    SystemNetwork('ResNet-50-Shared', '1', _shared(50), 'imagenet/sharedr50_in1k', 20.51, 4.11, 23.64),
    SystemNetwork('ResNet-50-Shared, two bases', '1', _shared(50, 2), 'imagenet/sharedr50_2bases_in1k', 18.26, 4.11, 23.95),
    SystemNetwork('ResNet-50-Shared-All', '1', _shared(50, 3), 'imagenet/sharedr50_all_in1k', 16.02, 4.11, 24.35),
    SystemNetwork('ResNet-50-Shared-NoOrthoReg', '1', _shared(50), 'imagenet/sharedr50_noorthoreg_in1k', 20.51, 4.11, 24.19),
    SystemNetwork('ResNet-101', '1', _shared(101, 0), 'imagenet/r101_150e_in1k', 44.55, 7.83, 22.63),
    SystemNetwork('ResNet-101-Shared', '1', _shared(101), 'imagenet/sharedr101_in1k', 29.47, 7.83, 22.31),
    SystemNetwork('MobileNetV2', '1', _mobile(0), 'imagenet/mobilenetv2_300e_in1k', 3.50, 0.33, 28.0, **_MOBILE),
    SystemNetwork('MobileNetV2-Shared', '1', _mobile(1), 'imagenet/sharedmobilenetv2_in1k', 3.24, 0.33, 27.61, **_MOBILE),
    SystemNetwork('MobileNetV2-Shared, two bases', '1', _mobile(2), 'imagenet/sharedmobilenetv2_2bases_in1k', 2.98, 0.33, 28.21,
                  note=_SECOND, **_MOBILE),
    SystemNetwork('ResNet-34 (CIFAR-100)', '2', _cifar(34, 0), 'cifar/r34_cifar100', 21.33, 1.17, 22.49, **_CIFAR100),
    SystemNetwork('ResNet-34-S32U1 (CIFAR-100)', '2', _cifar(34, 1), 'cifar/sharedr34_s32u1_cifar100', 7.73, 0.78, 21.84,
                  **_CIFAR100),
    SystemNetwork('ResNet-32 (CIFAR-10)', '3', _cifar(32, 0), 'cifar/r32_cifar10', 0.46, 0.07, 7.51, **_CIFAR10),
    SystemNetwork('ResNet-32-S16U1, two bases (CIFAR-10)', '3', _cifar(32, 2, shared_elements=16),
                  'cifar/sharedr32_s16u1_2bases_cifar10', 0.24, 0.08, 6.95, **_CIFAR10),
    SystemNetwork('ResNet-56 (CIFAR-10)', '3', _cifar(56, 0), 'cifar/r56_cifar10', 0.85, 0.16, 6.97, **_CIFAR10),
    SystemNetwork('ResNet-56-S16U1 (CIFAR-10)', '3', _cifar(56, 1, shared_elements=16), 'cifar/sharedr56_s16u1_cifar10', 0.27,
                  0.15, 7.46, **_CIFAR10),
    SystemNetwork('ResNet-56-S16U1, two bases (CIFAR-10)', '3', _cifar(56, 2, shared_elements=16),
                  'cifar/sharedr56_s16u1_2bases_cifar10', 0.31, 0.15, 6.33, **_CIFAR10),
)

_BASELINE = 'Printed without the stem and the first stage, which mmdet freezes (0.23M); so is the count.'
_MASK_R101 = f'{_BASELINE} 67.17M is probably a slip for 63.17M.'
_BACKBONES = (('r50_b8', 'ResNet-50'), ('sharedr50', 'ResNet-50-Shared'), ('sharedr50_2bases', 'ResNet-50-Shared, two bases'),
              ('r101_b8', 'ResNet-101'), ('sharedr101', 'ResNet-101-Shared'))
# Parameters in millions, box AP and mask AP of the five backbones in turn (Tables 4 and 5).
_PRINTED = {
    ('faster_rcnn', 'Faster R-CNN'): ((41.53, 36.4, None), (36.70, 37.2, None), (34.46, 36.6, None), (60.52, 38.7, None),
                                      (45.67, 39.0, None)),
    ('mask_rcnn', 'Mask R-CNN'): ((44.18, 37.2, 34.1), (39.35, 37.9, 34.5), (37.10, 37.3, None), (67.17, 39.4, 35.9),
                                  (48.31, 39.8, 35.9)),
    ('retinanet', 'RetinaNet'): ((37.74, 35.6, None), (32.92, 36.2, None), (30.67, 35.6, None), (56.74, 37.7, None),
                                 (41.88, 37.7, None)),
}

_DETECTORS = tuple(
    SystemDetector(f'{stem}_{network}_1x', method, name, '4, 5' if figures[2] else '4', *figures,
                   note=_MASK_R101 if figures[0] == 67.17 else _BASELINE if network.endswith('_b8') else '')
    for (stem, method), rows in _PRINTED.items() for (network, name), figures in zip(_BACKBONES, rows, strict=True))

SHARED_FILTER_BASES = System(
    title='Shared Filter Bases',
    paper='Deeply Shared Filter Bases for Parameter-Efficient Convolutional Neural Networks',
    url='https://arxiv.org/abs/2006.05066',
    text='What the networks share is on [its page](shared_filter_bases.md). Parameters count each shared basis once. The '
         'paper\'s multiply-adds include more than convolutions and fully connected layers.',
    networks=_NETWORKS,
    detectors=_DETECTORS)
