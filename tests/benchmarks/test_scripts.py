"""The speed benchmarks end to end at tiny sizes, and user errors."""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmtied.layers import TBC
from tests.helpers.tools import run_script

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def run_quickly(tmp_path, monkeypatch):
    """Return a function that runs a script in this process and returns its rows."""
    from reporting import read_csv

    def run(script, *options):
        path = tmp_path / f'{script}.csv'
        run_script(BENCHMARKS / f'{script}.py', [*options, '--quick', '--repeats', '1', '--csv', path], monkeypatch)
        run, = read_csv(tmp_path / 'runs.csv')
        assert run['file'] == path.name and f'torch {torch.__version__}'.partition('+')[0] in run['machine']
        assert str(tmp_path) not in run['command']
        return read_csv(path)

    return run


@pytest.mark.slow
def test_layers_add_up_to_networks(run_quickly):
    rows = run_quickly('layers', 'networks', '--formats', 'channels_last')
    assert {(row['network'], row['kernel'], row['layers']) for row in rows} == {
        (f'{name}, 1 x 32 x 32', kernel, layers) for name in ('TiedResNet-50', 'TiedResNet-50-S')
        for kernel, layers in (('1x1', '20'), ('3x3', '48'))}
    assert all((row['matmul, ms'] == '') == (row['kernel'] == '3x3') for row in rows)
    assert all(float(row['TBC, ms']) > 0 for row in rows)


@pytest.mark.slow
def test_figure_3(run_quickly):
    rows = run_quickly('layers', 'figure3', '--formats', 'contiguous', '--kernels', '1')
    assert [(row['step'], row['B']) for row in rows] == [
        (which, blocks) for which in ('forward', 'forward + backward') for blocks in '12']


@pytest.mark.slow
def test_backbones(run_quickly):
    rows = run_quickly('backbones', '--networks', 'TiedResNet-50-S', '--formats', 'contiguous', '--deploy')
    forms = [('inference', 'plain'), ('inference', 'deployed'), ('training', 'plain')]
    expected = [(step, network, form) for step in ('inference', 'training') for network in ('ResNet-50', 'TiedResNet-50-S')
                for form_step, form in forms if form_step == step]
    assert [(row['step'], row['network'], row['form']) for row in rows] == expected
    for row in rows:
        if row['network'] == row['baseline']:
            assert (row['times same form'], row['peak, same form']) == ('1.00', '1.00')
    inference, training = (float(rows[index]['peak MiB']) for index in (0, 4))
    weights = 23.5e6 * 4 / 2**20
    assert weights < inference < 1.3 * weights and 3 * weights < training < 5 * weights


@pytest.mark.slow
def test_detectors(run_quickly):
    rows = run_quickly('detectors', '--networks', 'TiedResNet-50-S')
    assert [(row['backbone'], row['step']) for row in rows] == [
        (name, step) for step in ('training', 'inference') for name in ('ResNet-50', 'TiedResNet-50-S')]
    assert all(row['step, times baseline'] == '1.00' for row in rows if row['backbone'] == 'ResNet-50')
    assert all(0 < int(row["backbone's share"].rstrip('%')) < 100 for row in rows)
    assert all(int(row['detections']) > 0 for row in rows[2:])


@pytest.mark.parametrize(('script', 'options', 'message'), [
    ('layers', 'shapes --device gpu', '--device gpu: use cpu'),
    ('layers', 'shapes --repeats 0', '--repeats 0: must be 1 or more'),
    ('layers', 'figure3 --kernels 2', '--kernels 2: must be odd'),
    ('layers', 'figure3 --blocks 3 --input 4 4 32', 'num_blocks=3'),
    ('layers', 'figure3 --filters 0', 'must be 1 or more'),
    ('backbones', '--batch 1', '--batch 1: must be 2 or more'),
    ('backbones', '--cuda-graphs', '--cuda-graphs needs --device cuda; got --device cpu'),
    ('backbones', '--size 1 2 3', '--size 1 2 3: give one side'),
    ('detectors', '--batch 0', '--batch 0: must be 1 or more'),
    ('backbones', '--least-ms nan', '--least-ms nan: must be 0 or more'),
    ('layers', 'shapes --device cpu:3', '--device cpu:3: use cpu'),
    ('layers', 'shapes --csv nowhere/a.csv', '--csv nowhere/a.csv: its folder does not exist'),
    ('backbones', '--csv page.md', '--csv page.md: name a .csv file'),
    ('backbones', '--csv runs.csv', '--csv runs.csv: name a .csv file other than runs.csv'),
    ('related_layers', '--layer nothing', '--layer nothing: no layer'),
    ('reading', 'no-such-commit', 'no-such-commit cannot be checked out'),
])
def test_user_errors(script, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [script, *options.split()])
    with pytest.raises(SystemExit) as raised:
        importlib.import_module(script).main()
    error = capsys.readouterr().err.splitlines()
    assert raised.value.code == 2
    assert message in error[-1] and error[-1].startswith('error: ')


def test_missing_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['layers', 'shapes', '--device', 'cuda'])
    with pytest.raises(SystemExit):
        importlib.import_module('layers').main()
    assert 'torch finds no GPU' in capsys.readouterr().err


def test_every_tied_network_has_a_baseline():
    from backbones import BASELINES, NETWORKS
    assert set(BASELINES) | set(BASELINES.values()) == set(NETWORKS)
    assert all(settings['type'].startswith('mmtied.') == (name in BASELINES) for name, settings in NETWORKS.items())


def test_graphed_forms_take_their_turns(monkeypatch):
    import backbones
    recorded = []
    monkeypatch.setattr(backbones, 'build', lambda name: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    monkeypatch.setattr('timing.cuda_graph', lambda call: recorded.append(call) or call)
    args = Namespace(formats=['channels_last'], steps=['inference', 'training'], deploy=True, compile=False, with_cp=False,
                     cuda_graphs=True, device='cpu', dtype='float32', repeats=1, least_ms=0)
    rows = list(backbones.compare(args, ['ResNet-50', 'TiedResNet-50'], torch.rand(2, 3, 8, 8)))
    forms = {step: [row['form'] for row in rows if row['step'] == step and row['network'] == 'ResNet-50'] for step in args.steps}
    assert forms == {'inference': ['plain', 'plain, CUDA graph', 'deployed', 'deployed, CUDA graph'],
                     'training': ['plain', 'plain, CUDA graph']}
    assert len(recorded) == 2 * 2 * 3  # networks, once for memory and once for time, forms


@pytest.mark.parametrize('mmcv_operators', [True, False])
def test_untied_baseline_needs_no_operators(mmcv_operators, monkeypatch):
    """mmpretrain's ResNet-50 is mmdet's: the same weights by name."""
    import backbones
    monkeypatch.setattr(backbones, 'find_spec', lambda name: mmcv_operators or None)
    network = backbones.build('ResNet-50')
    assert type(network).__module__.startswith('mmdet.' if mmcv_operators else 'mmpretrain.')
    assert network.out_indices == (0, 1, 2, 3) and not network.norm_eval
    assert sum(weight.numel() for weight in network.parameters()) == 23_508_032
    network.eval()  # mmdet's returns None
    assert network(torch.rand(1, 3, 32, 32))[3].shape == (1, 2048, 1, 1)


@pytest.mark.parametrize('off', [False, True])
def test_compiled_form_names_freezing(off):
    import backbones
    import torch._inductor.config as inductor
    with inductor.patch(freezing=off):  # not monkeypatch: it deletes what a module answers for through __getattr__
        args = Namespace(deploy=False, compile=True, no_freezing=off, with_cp=False, steps=['inference', 'training'])
        found = backbones.forms(args, 'ResNet-50')
        assert ('deployed, compiled with freezing' in found) is inductor.freezing is not off
        assert 'compiled' in found


def test_generated_batches_are_seeded_and_boxes_fit_masks():
    from detectors import make_batch
    first, again = (make_batch(2, (40, 60), seed=1) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first['inputs'], again['inputs'], strict=True))
    for image, sample in zip(first['inputs'], first['data_samples'], strict=True):
        assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
        instances = sample.gt_instances
        assert len(instances) >= 1 and instances.labels.max() < 80
        for box, mask in zip(instances.bboxes.tolist(), instances.masks.masks, strict=True):
            y, x = mask.nonzero()
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_figure_3_has_the_same_multiply_adds_at_every_b():
    from layers import TiedShape
    counts = set()
    for blocks in (1, 2, 8):
        shape = TiedShape(1, 32, 6 * blocks, 4, 4, 3, 1, blocks)
        for name, layer in shape.contenders().items():
            if name != 'dense':  # it multiplies zeros too
                with FlopCounterMode(display=False) as counter:
                    layer(torch.zeros(shape.input_shape()))
                counts.add(counter.get_total_flops())
    assert counts == {2 * 32 * 6 * 9 * 16}


@pytest.mark.parametrize('base_width', [32, 18])
def test_tied_shapes_sum_to_network_multiply_adds(base_width):
    """torch's counter sees all convolutions; the untied ones are counted from their modules."""
    from layers import tied_shapes

    from mmtied.backbones import TiedResNet
    network = TiedResNet(base_width=base_width).eval()
    shapes = tied_shapes(network, 1, (64, 96))
    assert sum(shapes.values()) == 16 + 4 + 3 * 16  # entries, shortcuts, and the splits but the first
    tied = sum(count * shape.in_channels * shape.out_channels * shape.kernel**2 // shape.num_blocks
               * (shape.height // shape.stride) * (shape.width // shape.stride) for shape, count in shapes.items())
    untied = 0

    def add(module, _, output):
        nonlocal untied
        if isinstance(module, nn.Conv2d) and getattr(module, 'num_blocks', 1) == 1:
            untied += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        module.register_forward_hook(add)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))
    assert tied + untied == counter.get_total_flops() // 2


def test_irregular_layers_are_rejected():
    from layers import tied_shapes
    with pytest.raises(ValueError, match='0: TBC.* is not a square'):
        tied_shapes(nn.Sequential(TBC(3, 3, 3, num_blocks=3)), 1, (8, 8))


def test_benchmarks_page_matches_its_csv_files():
    from summarize import DOCS, summarize
    page = (DOCS / 'benchmarks.md').read_text(encoding='utf-8')
    assert summarize(page, DOCS / 'benchmarks') == page, 'run python benchmarks/summarize.py'


@pytest.mark.parametrize('name', ['backbones_cpu', 'compiled_cpu', 'memory_cpu', 'detectors_cpu'])
def test_makes_every_table_and_plot(name, tmp_path):
    """Tables whose measurements may be missing from the repository, from made-up rows of the scripts' columns."""
    from backbones import row
    from summarize import PLOTS, TABLES
    from timing import Times
    times = {f'{network} | {form} | contiguous': [2., 2., 2.] if network == 'ResNet-50' else [1., 1., 1.]
             for network in ('ResNet-50', 'TiedResNet-50') for form in ('plain', 'with_cp=True')}
    peaks = {tuple(key.split(' | ')): 2**21 if 'Tied' in key else 2**22 for key in times}
    rows = [{key: str(value) for key, value in row('ResNet-50', key, step, Times(times), peaks, 8).items()}
            for step in ('inference', 'training') for key in peaks]
    if name == 'detectors_cpu':
        rows = [dict.fromkeys(('backbone', 'step', 'step, s', 'step, times baseline', 'backbone alone, times baseline',
                               "backbone's share"), '1')]
    table = TABLES[name][0](rows)
    assert name == 'detectors_cpu' or '| TiedResNet-50 |' in table and ('2.00' in table or '0.50' in table)
    if name in PLOTS:
        PLOTS[name](rows, tmp_path / 'plot.png')
        assert 0 < (tmp_path / 'plot.png').stat().st_size < 100_000


def test_null_bands_deal_ratios_and_spread_p_values(tmp_path, capsys, monkeypatch):
    import null_bands
    from simulated_detections import make_annotations
    data = make_annotations(60, num_categories=4)
    dealt = null_bands.deal_ratios(data, seed=0)
    own = null_bands.image_ratios(null_bands.read_ground_truth(data))
    ratios = [image[null_bands.DEALT] for image in dealt['images']]
    assert sorted(ratios) == sorted(own.tolist()) != ratios != own.tolist()
    (tmp_path / 'a.json').write_text(json.dumps(data))
    monkeypatch.setattr(sys, 'argv', ['null_bands.py', str(tmp_path / 'a.json'), '--csv', str(tmp_path / 'a.csv'), '--parts', '1',
                                      '--images', '60', '--repeats', '2', '--cases', 'r at random', 'much worse'])
    null_bands.main()
    rows = [line.split(',')[:2] for line in (tmp_path / 'a.csv').read_text().splitlines()[1:]]
    assert {part for part, _ in rows} == {'0', '1'} and {case for _, case in rows} == {'r at random', 'much worse'}
    table = capsys.readouterr().out
    assert [line.split()[:3] for line in table.splitlines()[-2:]] == [['much', 'worse', band] for band in null_bands.BANDS]
    lowest, highest = null_bands.ranks([2 / 251, 1.]).tolist()
    assert 0 < lowest < 2 / 251 and 249 / 251 < highest < 1


def test_reading_compares_with_an_older_version(monkeypatch, capsys):
    import reading
    read = []

    def seconds(root, truth, results):
        read.append(root)
        assert (root / 'mmtied').is_dir() and truth.is_file() and results.is_file()
        return (3., 1.) if root == reading.ROOT else (2., 4.)

    monkeypatch.setattr(reading, 'read', seconds)
    monkeypatch.setattr(sys, 'argv', ['reading.py', 'HEAD', '--repeats', '2', '--shrink', '100'])
    reading.main()
    rows = [line.split(' | ')[-3:] for line in capsys.readouterr().out.splitlines() if line.startswith(('| ann', '| res'))]
    assert rows == [['1.50', '1.50', '1.50 |'], ['0.25', '0.25', '0.25 |']]
    assert read[0] == read[3] != read[1] == read[2] and not read[0].exists()
