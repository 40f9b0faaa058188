"""Check the data of curves and bars in the figures."""

import numpy as np
import pytest

from mmtied.evaluation.reporting.plots import ap_range, plot_ap_over_r, plot_measure, plot_mix, plot_runs, plot_shared, run_curve
from mmtied.evaluation.reporting.runs import Run
from mmtied.plotting import to_rgb
from tests.helpers.report_cases import make_old_report, make_report


def curves(axes):
    """Return the data of each curve, without the dashed lines for all images."""
    return [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2]


def test_bands_match_intervals():
    report = make_report(empty=(2,))
    figure = plot_ap_over_r(report, 'bbox')
    axes = figure.axes[0]
    stems = [np.array([segment[:, 1] for segment in collection.get_segments() if len(segment)])
             for collection in axes.collections if hasattr(collection, 'get_segments')]
    assert len(stems) == 3
    for name, drawn in zip(('AP50', 'AP', 'AP75'), stems, strict=True):
        expected = [bucket[f'{name}_ci'] for bucket in report['bbox']['buckets'] if bucket[f'{name}_ci']]
        np.testing.assert_allclose(drawn[np.isfinite(drawn).all(1)], 100 * np.array(expected))
    assert to_rgb(figure).std() > 0


def test_no_bands_without_intervals():
    for report in (make_report(intervals=False), make_old_report()):
        assert not plot_ap_over_r(report, 'segm').axes[0].collections


@pytest.mark.parametrize('count', [1, 3])
def test_overlaid_runs(count):
    names = ['_plain $x$', 'tied', 'a name that is much too long for the legend of a figure'][:count]
    runs = [Run(name, make_report(seed)) for seed, name in enumerate(names)]
    figure = plot_runs(runs, 'bbox', 'AP75')
    top, images, instances = figure.axes
    for run, values in zip(runs, curves(top), strict=True):
        np.testing.assert_array_equal(values, [100 * bucket['AP75'] for bucket in run.report['bbox']['buckets']])
    buckets = runs[0].report['bbox']['buckets']
    assert [bar.get_height() for bar in images.patches] == [bucket['images'] for bucket in buckets]
    assert [bar.get_height() for bar in instances.patches] == [bucket['instances'] for bucket in buckets]
    legend = [text.get_text() for text in top.get_legend().get_texts()]
    assert len(legend) == count
    assert legend[0].replace('\\', '').endswith(f'_plain $x$ (all images {100 * runs[0].report["bbox"]["all"]["AP75"]:.1f})')
    to_rgb(figure)


def test_names_are_not_parsed_as_math():
    hostile = '$\\bad{$'
    report = make_report()
    report['definition'] = report['bbox']['buckets'][1]['name'] = hostile
    for figure in (plot_ap_over_r(report, 'bbox'), plot_runs([Run('a', report)], 'bbox'), plot_mix(report, 'bbox'),
                   plot_shared([Run('a', report)], 'bbox')):
        axes = figure.axes[-1]
        assert axes.get_xticklabels()[1].get_text() == r'\$\bad{\$'
        assert r'(\$\bad{\$)' in axes.get_xlabel()
        to_rgb(figure)  # raises if matplotlib parses a name as a formula


def test_styles_of_28_runs_differ():
    assert len({tuple(map(str, run_curve(number))) for number in range(28)}) == 28


def test_axis_limits_include_intervals():
    for seed in range(5):
        report = make_report(seed)
        low, high = ap_range([report], 'bbox', ['AP', 'AP75'])
        rows = [report['bbox']['all'], *report['bbox']['buckets']]
        drawn = [100 * value for row in rows for name in ('AP', 'AP75') for value in (row[name], *row[f'{name}_ci'])]
        assert low <= min(drawn)
        assert max(drawn) <= high


def test_size_mix_and_shared_ap():
    report = make_report(empty=(1,))
    axes = plot_mix(report, 'bbox').axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, -1).sum(0)
    np.testing.assert_allclose(heights, [100, 0, 100, 100])
    shown = {text.get_text() for text in axes.texts}
    assert {f'{bucket["instances_per_image"]:.1f}' for bucket in report['bbox']['buckets'] if bucket['images']} <= shown
    full, shared = curves(plot_shared([Run('tied', report)], 'bbox').axes[0])
    for values, key in ((full, 'AP'), (shared, 'AP_shared')):
        expected = [np.nan if bucket[key] is None else 100 * bucket[key] for bucket in report['bbox']['buckets']]
        np.testing.assert_array_equal(values, expected)


def with_nulls(seed=0, **options):
    """Return a report with null bands of AP and of the miss rate."""
    report = make_report(seed, iou_types=('bbox',), **options)
    for row in report['bbox']['buckets']:
        row['MR-2'] = row['AP'] / 2
        for name in ('AP', 'AP50', 'AP75', 'MR-2'):
            for number, kind in enumerate(('null', 'matched_null')):
                row[f'{name}_{kind}'], row[f'{name}_{kind}_ci'] = .8, [.7 + number / 20, .9 + number / 20]
    report['bbox']['all']['MR-2'] = .3
    return report


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_null_bands_of_one_run_are_told_apart():
    for figure, prefix in ((plot_ap_over_r(with_nulls(), 'bbox'), 'AP of '), (plot_runs([Run('a', with_nulls())], 'bbox'), ''),
                           (plot_measure([Run('a', with_nulls())], 'bbox', 'MR-2'), '')):
        axes = figure.axes[0]
        assert legend_of(axes)[:2] == [f'{prefix}random images', f'{prefix}matched images']
        bands = [collection for collection in axes.collections if str(collection.get_label()).endswith(' images')]
        assert [band.get_hatch() for band in bands] == [None, '////']
        assert bands[1].get_paths()[0].vertices[:, 1].max() == pytest.approx(95)
        assert axes.get_ylim()[1] > 95
        to_rgb(figure)


def test_null_bands_of_several_runs_have_their_colors():
    runs = [Run('a', with_nulls()), Run('b', with_nulls(1))]
    for figure in (plot_runs(runs, 'bbox'), plot_measure(runs, 'bbox', 'MR-2')):
        axes = figure.axes[0]
        assert legend_of(axes).count('dotted: matched images') == 1
        dotted = [line.get_color() for line in axes.lines if line.get_ydata()[0] == pytest.approx(75)]
        assert dotted == [run_curve(0).color, run_curve(1).color]
    instances = [Run('a', with_nulls(unit='instance'))]
    assert legend_of(plot_runs(instances, 'bbox').axes[0])[0] == 'random instances'
