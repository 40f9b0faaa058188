"""OcclusionEvalHook in a real mmengine runner whose model returns fixed predictions."""

import json
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

from mmtied.evaluation.hook import AS_DEFAULT_HOOK, OcclusionEvalHook, annotations_of
from mmtied.evaluation.metric import OcclusionCocoMetric
from mmtied.evaluation.records import read_records
from mmtied.evaluation.reporting.runs import read_report
from mmtied.evaluation.run_checks import lost_hooks
from mmtied.plotting import write_figure

pytestmark = pytest.mark.usefixtures('blank_figures')
SIZE = 64
FILES = ['ap_over_r_bbox.png', 'buckets.csv', 'buckets.tex', 'records.npz', 'report.html', 'report.json']


class Images(BaseDataset):
    """Dataset of the image ids of a COCO file."""

    METAINFO = dict(classes=('thing', ))

    def load_data_list(self):
        return [dict(img_id=image['id']) for image in json.loads(Path(self.ann_file).read_text())['images']]


class FixedDetector(BaseModel):
    """Model that finds the single box of every image, and its mask."""

    def __init__(self, with_mask=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.with_mask = with_mask

    def forward(self, img_id, sample_idx, img_path=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss=self.weight.sum())
        samples = []
        for number in img_id:
            found = InstanceData(bboxes=torch.tensor([[8., 8., 24., 24.]]), scores=torch.tensor([.9]),
                                 labels=torch.tensor([0]))
            if self.with_mask:
                found.masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
                found.masks[:, 8:24, 8:24] = True
            samples.append(BaseDataElement(pred_instances=found, metainfo=dict(img_id=number, ori_shape=(SIZE,) * 2)))
        return samples


@pytest.fixture
def ann_file(tmp_path):
    box = dict(category_id=1, iscrowd=0, bbox=[8, 8, 16, 16], area=256,
               segmentation=[[8, 8, 24, 8, 24, 24, 8, 24]])
    annotations = [dict(box, id=1, image_id=1), dict(box, id=2, image_id=2),
                   dict(box, id=3, image_id=2, bbox=[16, 8, 16, 16], segmentation=[[16, 8, 32, 8, 32, 24, 16, 24]])]
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(dict(images=[dict(id=number, height=SIZE, width=SIZE) for number in (1, 2, 3)],
                                    categories=[dict(id=1, name='thing')], annotations=annotations)))
    return str(path)


def make_runner(tmp_path, ann_file, evaluator, hook=None, with_mask=False, train=None, dataset=None, log_level='WARNING', **more):
    loader = dict(batch_size=2, num_workers=0, dataset=dataset or Images(ann_file), collate_fn=dict(type='pseudo_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    if train:
        more |= dict(train_dataloader=loader, train_cfg=train, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)))
    return Runner(FixedDetector(with_mask), str(tmp_path / 'work'), default_scope='mmdet', log_level=log_level,
                  val_dataloader=loader, val_cfg={}, val_evaluator=evaluator,
                  test_dataloader=loader, test_cfg={}, test_evaluator=evaluator,
                  experiment_name=tmp_path.name,
                  visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
                  **{'custom_hooks': [dict(type='OcclusionEvalHook', **(hook or {}))], **more})


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / 'work/occlusion').iterdir())


@pytest.mark.parametrize('loop', ['val', 'test'])
def test_hook_adds_metric_and_writes_files(tmp_path, ann_file, loop):
    runner = make_runner(tmp_path, ann_file, dict(type='CocoMetric', ann_file=ann_file), hook=dict(edges=(0, .5, 1)))
    values = getattr(runner, loop)()
    assert values['occlusion/bbox_mAP'] == pytest.approx(values['coco/bbox_mAP'], abs=6e-4)  # CocoMetric rounds
    assert values['occlusion/bbox_mAP_r0'] == pytest.approx(1)
    assert written(tmp_path) == FILES
    report = read_report(tmp_path / 'work/occlusion/report.json')
    assert [bucket['images'] for bucket in report['bbox']['buckets']] == [1, 0, 1]
    assert report['bbox']['all']['images'] == 3
    assert report['bbox']['all']['AP'] == values['occlusion/bbox_mAP']
    assert len(list((tmp_path / 'work').rglob('ap_over_r_bbox_0.png'))) == 1  # the visualizer's copy


def test_extra_evaluations_and_unit_reach_the_report(tmp_path, ann_file):
    runner = make_runner(tmp_path, ann_file, dict(type='CocoMetric', ann_file=ann_file),
                         hook=dict(unit='instance', edges=(0, .5, 1),
                                   extra_evaluations=[dict(cumulative=True, edges=(0, .5, 1))]))
    values = runner.val()
    report = read_report(tmp_path / 'work/occlusion/report.json')
    assert [bucket['instances'] for bucket in report['bbox']['buckets']] == [1, 0, 2]
    assert [bucket['upper'] for bucket in report['further'][0]['bbox']['buckets']] == [None, None]
    name = 'occlusion/covered_cumulative_bbox_mAP_r0.5-up'
    assert values[name] == report['further'][0]['bbox']['buckets'][1]['AP']


def test_hook_uses_metric_of_config(tmp_path, ann_file):
    runner = make_runner(tmp_path, ann_file, dict(type='OcclusionCocoMetric', ann_file=ann_file, edges=(0, 1)))
    values = runner.val()
    assert len(runner.val_loop.evaluator.metrics) == 1
    assert values['coco/bbox_mAP_r0'] == pytest.approx(1)
    assert len(read_report(tmp_path / 'work/occlusion/report.json')['bbox']['buckets']) == 2


def test_segm_is_evaluated_for_models_with_masks(tmp_path, ann_file):
    values = make_runner(tmp_path, ann_file, [], with_mask=True).val()
    assert values['occlusion/segm_mAP_r0'] == pytest.approx(1)
    assert written(tmp_path) == sorted([*FILES, 'ap_over_r_segm.png'])


@pytest.mark.parametrize('name', ['big.json', 'big.coco', 'big'])
def test_annotations_are_identified_by_content(tmp_path, ann_file, name):
    """Copies of the file under any name have the same masks, so r by masks is the same."""
    (tmp_path / name).write_text(Path(ann_file).read_text())
    make_runner(tmp_path, str(tmp_path / name), [], with_mask=True, hook=dict(definition='mask', edges=(0, .5, 1))).val()
    report = read_report(tmp_path / 'work/occlusion/report.json')
    assert report['definition'] == 'mask' and [bucket['images'] for bucket in report['segm']['buckets']] == [1, 0, 1]


@pytest.mark.parametrize(('train', 'steps'), [(dict(by_epoch=True, max_epochs=2), [1, 2]),
                                              (dict(by_epoch=False, max_iters=4, val_interval=2), [2, 4])])
def test_visualizer_steps(tmp_path, ann_file, train, steps):
    log = dict(logger=dict(type='LoggerHook', log_metric_by_epoch=train['by_epoch']))
    make_runner(tmp_path, ann_file, [], train=train, default_hooks=log).train()
    names = sorted(path.name for path in (tmp_path / 'work').rglob('ap_over_r_bbox_*.png'))
    assert names == [f'ap_over_r_bbox_{step}.png' for step in steps]
    lines = next((tmp_path / 'work').rglob('scalars.json')).read_text().splitlines()
    logged = [json.loads(line) for line in lines if 'occlusion/bbox_mAP' in line]
    assert [line['step'] for line in logged] == steps


@pytest.mark.parametrize('evaluator', [[], [dict(type='OcclusionCocoMetric', metric=['bbox', 'segm'])]])
def test_log_has_a_table_and_a_short_line(tmp_path, ann_file, evaluator):
    for metric in evaluator:
        metric['ann_file'] = ann_file
    prefix = 'coco' if evaluator else 'occlusion'
    best = dict(type='CheckpointHook', save_best=f'{prefix}/segm_mAP_75_r0', rule='greater')  # a scalar of a bucket
    make_runner(tmp_path, ann_file, evaluator, train=dict(by_epoch=True, max_epochs=1), with_mask=True, log_level='INFO',
                default_hooks=dict(checkpoint=best)).train()
    assert list((tmp_path / 'work').rglob(f'best_{prefix}_segm_mAP_75_r0_epoch_1.pth'))
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    rows = [line.split() for line in log.splitlines()]
    assert rows.count(['r', 'images', 'instances', 'AP', 'AP50', 'AP75']) == 2
    assert rows.count(['r=0', '1', '1', '100.0', '100.0', '100.0']) == 2
    line = next(line for line in log.splitlines() if 'Epoch(val)' in line and 'mAP' in line)
    names = [f'{prefix}/{iou_type}_mAP{size}' for iou_type in ('bbox', 'segm') for size in ('', '_50', '_75', '_s', '_m', '_l')]
    assert [item.split(': ')[0] for item in line.split('  ') if 'mAP' in item] == names
    scalars = json.loads(next((tmp_path / 'work').rglob('scalars.json')).read_text().splitlines()[-1])
    assert scalars[f'{prefix}/segm_mAP_75_r0'] == pytest.approx(1)


def test_failed_evaluation_keeps_previous_files(tmp_path, ann_file, monkeypatch):
    make_runner(tmp_path, ann_file, []).val()
    before = (tmp_path / 'work/occlusion/report.json').read_bytes()
    monkeypatch.setattr('mmtied.evaluation.reporting.files.json.dumps', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_runner(tmp_path, ann_file, []).val()
    assert (tmp_path / 'work/occlusion/report.json').read_bytes() == before
    assert written(tmp_path) == FILES


def test_failed_write_keeps_previous_report(tmp_path, ann_file, monkeypatch):
    make_runner(tmp_path, ann_file, []).val()
    before = (tmp_path / 'work/occlusion/report.json').read_text()
    (tmp_path / 'work/occlusion/report.json').write_text(before + '\n')  # so that writing it again would show
    monkeypatch.setattr('mmtied.evaluation.reporting.page.write_page', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_runner(tmp_path, ann_file, []).val()
    assert (tmp_path / 'work/occlusion/report.json').read_text() == before + '\n'


@pytest.mark.parametrize('num_replicates', [0, 2])
def test_hook_does_not_change_the_metrics_report(tmp_path, ann_file, num_replicates):
    runner = make_runner(tmp_path, ann_file, [], hook=dict(num_replicates=num_replicates))
    runner.val()
    metric, = runner.val_loop.evaluator.metrics
    assert 'data' not in metric.report
    assert read_report(tmp_path / 'work/occlusion/report.json')['data'] == 'instances.json'


def test_annotation_file_of_wrapped_dataset(ann_file):
    class Wrapped:
        dataset = Images(ann_file)

    assert annotations_of(Wrapped()) == ann_file


def test_datasets_without_annotation_file(tmp_path, ann_file):
    both = ConcatDataset([Images(ann_file), Images(ann_file)])
    with pytest.raises(ValueError, match='joins several.*ann_file='):
        make_runner(tmp_path, ann_file, [], dataset=both).val()
    with pytest.raises(ValueError, match='no COCO annotation file.*ann_file='):
        annotations_of(torch.utils.data.TensorDataset(torch.zeros(1)))
    values = make_runner(tmp_path, ann_file, [], dataset=both, hook=dict(ann_file=ann_file)).val()
    assert values['occlusion/bbox_mAP_r0'] == pytest.approx(1)


def test_default_iou_types(ann_file):
    from mmengine.evaluator import Evaluator

    from mmtied.evaluation.hook import default_iou_types
    model = FixedDetector(with_mask=True)
    assert default_iou_types(Evaluator(CocoMetric(ann_file, metric=['segm', 'proposal'])), model) == ['segm']
    assert default_iou_types(Evaluator([]), model) == ['bbox', 'segm']
    assert default_iou_types(Evaluator([]), FixedDetector()) == ['bbox']


def test_registered_in_root_registries():
    from mmengine.registry import HOOKS, METRICS
    assert HOOKS.get('OcclusionEvalHook') is OcclusionEvalHook
    assert METRICS.get('OcclusionCocoMetric') is OcclusionCocoMetric


class Photographs(Images):
    """The same dataset with image files, as test configs have them."""

    def load_data_list(self):
        folder = Path(self.ann_file).parent
        return [dict(info, img_path=str(folder / f'{info["img_id"]}.png')) for info in super().load_data_list()]


class WrongMasks(FixedDetector):
    """Model that finds the box, but predicts its mask elsewhere."""

    def forward(self, img_path, **kwargs):
        samples = super().forward(**kwargs)
        for sample in samples:
            sample.pred_instances.masks = torch.roll(sample.pred_instances.masks, 30, dims=2)
        return samples


@pytest.mark.parametrize(('iou_types', 'chosen'), [(['bbox'], []), (['bbox', 'segm'], ['1.png']),
                                                    (['segm'], ['1.png'])])
def test_worst_images_are_chosen_by_masks_for_segm(tmp_path, ann_file, monkeypatch, iou_types, chosen):
    for number in (1, 2, 3):
        Image.new('RGB', (SIZE, SIZE)).save(tmp_path / f'{number}.png')
    monkeypatch.setitem(globals(), 'FixedDetector', WrongMasks)
    runner = make_runner(tmp_path, ann_file, [], with_mask=True, dataset=Photographs(ann_file),
                         hook=dict(metric=iou_types, edges=(0, 1), num_replicates=0, name='A & B'))
    runner.val()
    page = (tmp_path / 'work/occlusion/report.html').read_text()
    assert f'by {iou_types[-1]} at IoU 0.5' in ' '.join(page.split())
    assert [name for name in ('1.png',) if f'{name}: r = 0.00, F1 0.00; 0 of 1 found' in page] == chosen
    assert '<h1>AP by occlusion: A &amp; B</h1>' in page
    assert read_report(tmp_path / 'work/occlusion/report.json')['name'] == 'A & B'
    assert read_records(tmp_path / 'work/occlusion').name == 'A & B'


def test_options_of_the_report(tmp_path, ann_file):
    make_runner(tmp_path, ann_file, [], hook=dict(unit='instance', levels={'bare': (0, .3), 'hidden': (.3, 1)}, min_height=10,
                                                  format='svg', statistics=['MR-2'], null_sets=3, num_replicates=2)).val()
    report = read_report(tmp_path / 'work/occlusion/report.json')
    assert [bucket['name'] for bucket in report['bbox']['buckets']] == ['bare', 'hidden']
    assert report['definition'] == 'covered, height >= 10'
    assert report['null_bands']['sets'] == 3
    assert 'MR-2_ci' in report['bbox']['all'] and 'AP_ci' not in report['bbox']['all']
    assert 'ap_over_r_bbox.svg' in written(tmp_path)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(preset='citypersons', unit='instance'), "preset='citypersons' sets definition, unit"),
    (dict(preset='kitti'), "unknown preset 'kitti'; use one of citypersons"),
    (dict(format='bmp'), 'format: expected one of png'), (dict(choice='best'), "choice='best'; use one of"),
    (dict(statistics=['AP_S']), 'intervals of AP_S'),
])
def test_report_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        OcclusionEvalHook(**options)
    assert OcclusionEvalHook(preset='citypersons').has_options


@pytest.mark.parametrize(('name', 'hint'), [('defintion', '; did you mean definition[?]'), ('proposal_nums', ''), ('prefix', ''),
                                            ('backend_args', ''), ('collect_device', '')])
def test_invalid_hook_arguments(name, hint):
    """This includes metric options that the hook sets itself, which would only fail when the metric is built."""
    with pytest.raises(TypeError, match=f'^OcclusionEvalHook: unexpected argument {name}{hint}$'):
        OcclusionEvalHook(**{name: None})


@pytest.mark.parametrize(('options', 'names'), [
    (dict(preset='citypersons'), ['MR-2']), (dict(preset='citypersons', statistics=['AP']), ['AP']),
    (dict(preset='crowdhuman'), ['AP', 'AP50', 'AP75'])])
def test_citypersons_reports_the_miss_rate(options, names):
    assert [statistic.name for statistic in OcclusionEvalHook(**options).bootstrap.chosen()] == names


def test_each_plot_is_drawn_once(tmp_path, ann_file, monkeypatch):
    import mmtied.evaluation.reporting.plots as plots
    monkeypatch.setattr(plots, 'write_figure', write_figure)  # not the blank one
    drawn, plot = [], plots.plot_ap_over_r
    monkeypatch.setattr(plots, 'plot_ap_over_r', lambda *args: drawn.append(args[1]) or plot(*args))
    make_runner(tmp_path, ann_file, [], with_mask=True).val()
    assert drawn == ['bbox', 'segm']
    for iou_type in drawn:
        copy, = (tmp_path / 'work').rglob(f'ap_over_r_{iou_type}_0.png')
        images = [Image.open(path).convert('RGB') for path in (copy, tmp_path / f'work/occlusion/ap_over_r_{iou_type}.png')]
        assert images[0].tobytes() == images[1].tobytes()


RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def test_default_hook_merges_into_base_config(tmp_path):
    """RTMDet keeps its EMA, pipeline switch and default hooks."""
    (tmp_path / 'mine.py').write_text(f"_base_ = '{RTMDET}'\n{AS_DEFAULT_HOOK}")
    cfg, base = Config.fromfile(tmp_path / 'mine.py'), Config.fromstring(f"_base_ = '{RTMDET}'", '.py')
    assert cfg.default_hooks.pop('occlusion') == dict(type='mmtied.OcclusionEvalHook')
    assert cfg.default_hooks == base.default_hooks
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'PipelineSwitchHook']
    assert lost_hooks(str(tmp_path / 'mine.py')) == []


@pytest.mark.parametrize('listed', [True, False])
def test_default_hook_runs_like_a_custom_hook(tmp_path, ann_file, listed):
    """Either way it runs after the timer hooks and before those that log and save."""
    hook = dict(type='mmtied.OcclusionEvalHook', edges=(0, .5, 1))
    hooks = dict(custom_hooks=[hook]) if listed else dict(default_hooks=dict(occlusion=hook), custom_hooks=[])
    runner = make_runner(tmp_path, ann_file, [], train=dict(by_epoch=True, max_epochs=1), **hooks)
    order = [type(hook).__name__ for hook in runner.hooks]
    assert order.index('IterTimerHook') < order.index('OcclusionEvalHook') < order.index('LoggerHook')
    assert order.index('LoggerHook') < order.index('CheckpointHook')
    runner.train()
    assert written(tmp_path) == FILES
    scalars = json.loads(next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()[-1])
    assert scalars['occlusion/bbox_mAP_r0'] == pytest.approx(1)


def test_replaced_base_hooks_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = "custom_hooks = [dict(type='mmtied.OcclusionEvalHook')]"
    (tmp_path / 'mine.py').write_text(f"_base_ = '{RTMDET}'\n{listed}")
    (tmp_path / 'child.py').write_text("_base_ = ['./mine.py']\ntrain_cfg = dict(max_epochs=1)")
    (tmp_path / 'kept.py').write_text(f"_base_ = '{RTMDET}'\n{listed} + _base_.custom_hooks")
    (tmp_path / 'other.py').write_text(f"_base_ = '{RTMDET}'\ncustom_hooks = [dict(type='EarlyStoppingHook')]")
    (tmp_path / 'new.py').write_text(listed)
    (tmp_path / 'base.py').write_text("custom_hooks = [dict(type='EMAHook')]")
    (tmp_path / 'local.py').write_text(f"_base_ = './base.py'\n{listed}")
    (tmp_path / 'plain.py').write_text(f"_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n{listed}")
    lost = ['EMAHook', 'PipelineSwitchHook']
    assert lost_hooks('local.py') == ['EMAHook']  # by a relative path, as on the command line
    assert [lost_hooks(str(tmp_path / f'{name}.py')) for name in ('mine', 'child', 'kept', 'other', 'new', 'plain',
                                                                          'gone')] == [lost, lost, *[[]] * 5]


def test_hook_warns_of_replaced_base_hooks(tmp_path, ann_file, monkeypatch):
    said = []
    monkeypatch.setattr('mmtied.evaluation.hook.lost_hooks', lambda path: ['EMAHook'])
    runner = make_runner(tmp_path, ann_file, [], train=dict(by_epoch=True, max_epochs=1))
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    hook, = (hook for hook in runner.hooks if isinstance(hook, OcclusionEvalHook))
    runner.train_loop, runner.val_loop  # noqa: B018, the properties build the loops
    hook.before_run(runner)
    hook.before_run(runner)
    assert said == ["OcclusionEvalHook: the config's custom_hooks replace those of its base config and drop EMAHook; to keep "
                    f'them, add this hook as {AS_DEFAULT_HOOK} instead']


def test_one_of_several_hooks_is_used(tmp_path, ann_file):
    """If a config adds a second hook to its base config's, the one with arguments is used."""
    runner = make_runner(tmp_path, ann_file, [], default_hooks=dict(
        occlusion=dict(type='OcclusionEvalHook', edges=(0, .5, 1)), logger=dict(type='LoggerHook')))
    assert sum(isinstance(hook, OcclusionEvalHook) for hook in runner.hooks) == 2
    runner.val()
    assert len(runner.val_loop.evaluator.metrics) == 1
    assert len(read_report(tmp_path / 'work/occlusion/report.json')['bbox']['buckets']) == 3


@pytest.mark.parametrize(('evaluator', 'key', 'message'), [
    ('CocoMetric', 'coco/bbox_mAP_r0', r"save_best='coco/bbox_mAP_r0': the validation reports no such scalar; did you mean "
                                       'occlusion/bbox_mAP_r0[?] validation reports occlusion/bbox_mAP, '),
    ('CocoMetric', 'occlusion/bbox_mAP_r0.1-0.2', 'bucket .0.1,0.2. has no instances; validation reports occlusion/bbox_mAP, '),
    ('CocoMetric', 'occlusion/bbox_mPA', 'did you mean occlusion/bbox_mAP[?]'),
    ('CocoMetric', 'oclusion/bbox_mAP', 'did you mean occlusion/bbox_mAP[?]'),
    ('OcclusionCocoMetric', 'occlusion/bbox_mAP_r0', 'did you mean coco/bbox_mAP_r0[?]'),
    ('OcclusionCocoMetric', 'coco/bbox_mAP_r0.1-0.2', 'bucket .* has no instances'),
])
def test_monitored_numbers_are_checked_before_training(tmp_path, ann_file, evaluator, key, message):
    runner = make_runner(tmp_path, ann_file, dict(type=evaluator, ann_file=ann_file), train=dict(by_epoch=True, max_epochs=1),
                         default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=key, rule='greater')))
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


def test_monitored_numbers_that_exist(tmp_path, ann_file):
    """`scalar_names` are those of a validation; scalars of other metrics are not checked."""
    stopping = [dict(type='EarlyStoppingHook', monitor='occlusion/bbox_mAP_75_r0'), dict(type='OcclusionEvalHook')]
    plateau = dict(type='ReduceOnPlateauLR', monitor='occlusion/bbox_mAP_r0.5-0.6', rule='greater')
    runner = make_runner(tmp_path, ann_file, dict(type='CocoMetric', ann_file=ann_file), custom_hooks=stopping,
                         train=dict(by_epoch=True, max_epochs=1), param_scheduler=plateau,
                         default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='coco/bbox_mAP', interval=5)))
    runner.train()
    assert next((tmp_path / 'work').glob('best_coco_bbox_mAP_epoch_1.pth'))
    metric = runner.val_loop.evaluator.metrics[-1]
    assert metric.scalar_names() == [name for name in runner.val() if name.startswith('occlusion/')]


@pytest.mark.parametrize('where', ['hook', 'schedule'])
def test_monitors_of_other_hooks_and_schedules(tmp_path, ann_file, where):
    wrong = dict(monitor='occlusion/bbox_mAP_r0.1-0.2', rule='greater')
    more = dict(param_scheduler=[dict(type='ReduceOnPlateauLR', **wrong)]) if where == 'schedule' else dict(
        default_hooks=dict(stop=dict(type='EarlyStoppingHook', **wrong)))
    runner = make_runner(tmp_path, ann_file, [], train=dict(by_epoch=True, max_epochs=1), **more)
    name = 'ReduceOnPlateauLR' if where == 'schedule' else 'EarlyStoppingHook'
    with pytest.raises(ValueError, match=f"{name}: monitor='occlusion/bbox_mAP_r0.1-0.2': bucket .* has no instances"):
        runner.train()


class Named(Images):
    """Dataset of images with paths, as in mmdet."""

    def load_data_list(self):
        return [dict(img_id=number, img_path=f'{self.data_prefix["img_path"]}/{number}.jpg') for number in (1, 2, 3)]


def test_joined_datasets_with_ambiguous_ids_are_refused(tmp_path, ann_file):
    parts = [Named(ann_file, data_prefix=dict(img_path=folder)) for folder in 'ab']
    with pytest.raises(ValueError, match='image id 1 for different images, a/1.jpg and b/1.jpg; evaluate one dataset at a time'):
        make_runner(tmp_path, ann_file, dict(type='CocoMetric', ann_file=ann_file), hook=dict(ann_file=ann_file),
                    dataset=ConcatDataset(parts)).val()
    runner = make_runner(tmp_path / 'repeats', ann_file, dict(type='CocoMetric', ann_file=ann_file), hook=dict(ann_file=ann_file),
                         dataset=ConcatDataset([parts[0], parts[0]]))
    assert runner.val()['occlusion/bbox_mAP_r0'] == pytest.approx(1)


def test_segm_without_a_mask_head_is_refused_before_training(tmp_path, ann_file, monkeypatch):
    for name, value in (('with_roi_head', True), ('with_mask', False)):  # properties of mmdet's two-stage detectors
        monkeypatch.setattr(FixedDetector, name, value, raising=False)
    monkeypatch.setattr(FixedDetector, '__init__', lambda self, with_mask: BaseModel.__init__(self))
    with pytest.raises(ValueError, match="metric 'segm' needs masks, and FixedDetector has no mask head; set metric='bbox'"):
        make_runner(tmp_path, ann_file, [], hook=dict(ann_file=ann_file, metric='segm')).val()
