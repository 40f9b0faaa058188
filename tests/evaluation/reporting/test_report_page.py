"""Parse the HTML page: self-contained, with the report's numbers, and with all names escaped."""

import base64
import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from mmtied.evaluation import Evaluation, evaluate
from mmtied.evaluation.inputs.images import image_paths
from mmtied.evaluation.intervals import METHOD
from mmtied.evaluation.reporting.page import render_page, write_page
from mmtied.evaluation.reporting.pictures import draw_worst
from mmtied.evaluation.reporting.runs import Run
from mmtied.evaluation.reporting.tables import format_tables
from tests.helpers.report_cases import make_old_report, make_report
from tests.helpers.simulated import many

VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Page(HTMLParser):
    """Parse a page into tags with attributes, tables as rows of cell texts and as widths of columns, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.text, self._open, self.widths = [], {}, '', [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == 'table':
            self._rows = []
            self.widths.append({})
        elif tag == 'tr':
            self._rows.append([])
        elif tag in ('td', 'th'):
            self._rows[-1].append('')
        elif tag in ('b', 'span', 'li'):
            self.text += ' '
        elif tag == 'small':
            self._rows[-1][-1] += ' '

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == 'caption':
            self._caption = self._data
        elif tag == 'table':
            self.tables.setdefault(self._caption, self._rows)

    def handle_data(self, data):
        self._data = data
        self.text += data
        if self._open and {'td', 'th'} & set(self._open):
            self._rows[-1][-1] += data
            column = len(self._rows[-1])
            self.widths[-1][column] = max(len(data), self.widths[-1].get(column, 0))

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_self_contained(page):
    assert not {'script', 'link', 'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith('on'), (tag, name)
            if name in ('src', 'href', 'srcset', 'data', 'action', 'poster', 'background'):
                assert value.startswith('data:image/') if tag == 'img' else value.startswith('#'), value[:80]
    images = page.attributes('img')
    for attributes in images:
        assert attributes['alt']
        kind, _, content = attributes['src'].partition(';base64,')
        content = base64.b64decode(content, validate=True)
        if kind == 'data:image/svg+xml':
            root = ElementTree.fromstring(content)
            assert root.tag.endswith('svg')
            links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith('href')]
            assert all(value.startswith('#') for value in links)
        else:
            assert kind == 'data:image/jpeg'
            Image.open(io.BytesIO(content)).load()
    return images


def expected_rows(table):
    """Return the expected rows of a report's result table."""
    rows = [['r', 'images', 'instances', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L']]
    for name, row in [('all', table['all']), *((bucket['name'], bucket) for bucket in table['buckets'])]:
        cells = [name, str(row['images']), str(row['instances'])]
        for key in rows[0][3:]:
            text = '-' if row[key] is None else f'{100 * row[key]:.1f}'
            if row.get(f'{key}_ci'):
                text += ' {:.1f}–{:.1f}'.format(*(100 * end for end in row[f'{key}_ci']))
            cells.append(text)
        rows.append(cells)
    return rows


@pytest.mark.parametrize('options', [{}, dict(empty=(2,)), dict(empty=(0, 1, 2, 3)), dict(intervals=False),
                                     dict(iou_types=('bbox',)), dict(iou_types=('segm',), unit='instance'), dict(edges=(.5, 1))])
def test_page_of_one_run(options):
    report = make_report(**options)
    page = Page(render_page([Run('tied', report)]))
    iou_types = [name for name in ('bbox', 'segm') if name in report]
    shared = any(bucket['AP_shared'] is not None for bucket in report[iou_types[0]]['buckets'])
    assert len(check_self_contained(page)) == 2 * len(iou_types) + 1 + shared * len(iou_types)  # curves, mix, shared
    for iou_type in iou_types:
        assert page.tables[iou_type] == expected_rows(report[iou_type])
    assert 'total overlap area / total instance area' in page.text
    assert 'covered' in page.text
    assert f'AP in %, all images {100 * report[iou_types[0]]["all"]["AP"]:.1f}' in ' '.join(page.text.split())
    assert ('95 % intervals' in page.text) == (options.get('intervals', True))


@pytest.mark.usefixtures('blank_figures')
def test_describes_bootstrap_per_run():
    reports = [make_report(seed, iou_types=('bbox',)) for seed in range(3)]
    names = ('one', 'two', 'three')
    made = f'95 % intervals ({METHOD}, {{}} replicates, seed {{}})'.format
    text = ' '.join(Page(render_page(list(map(Run, names, reports)))).text.split())
    assert text.count(made(1000, 0)) == 1
    assert f'below values: {made(1000, 0)}. Buckets of fewer than 20 images have none' in text
    reports[1]['intervals'] = dict(reports[1]['intervals'], replicates=200, seed=7)
    reports[2]['intervals'] = None
    text = ' '.join(Page(render_page(list(map(Run, names, reports)))).text.split())
    assert f'below values: one: {made(1000, 0)}; two: {made(200, 7)}; three: no intervals. Buckets of fewer' in text


@pytest.mark.usefixtures('blank_figures')
def test_headline_uses_the_papers_highest_bucket():
    report = make_report(iou_types=('bbox',))
    *_, last = report['bbox']['buckets']
    text = ' '.join(Page(render_page([Run('tied', report)])).text.split())
    assert f'bbox AP in %, images with r in [0.8,1] {100 * last["AP"]:.1f}' in text
    assert '30 images, 210 instances' in text
    assert 'Without random sets to compare with, this says nothing about occlusion' in text
    last['images'] = 19  # too few
    text = ' '.join(Page(render_page([Run('tied', report)])).text.split())
    assert f'bbox AP in %, images with r in [0.4,0.8) {100 * report["bbox"]["buckets"][-2]["AP"]:.1f}' in text


@pytest.mark.parametrize(('plain', 'matched', 'verdict'), [
    ((-.08, .004), (-.05, .004), 'costs this detector AP beyond what crowding, sizes and categories explain'),
    ((-.08, .004), (-.01, .4), 'is lower than by chance, but crowding, sizes and categories may explain it'),
    ((-.02, .2), (.01, .4), 'do not show whether occlusion affects the detector'),
    ((.09, .004), (.07, .004), 'does not lower its AP beyond what'),
])
def test_first_sentence_says_what_the_numbers_do(plain, matched, verdict):
    report = make_report(iou_types=('bbox',))
    report['null_bands'] = dict(sets=250, seed=0, plain='random sets', matched='matched sets')
    for row in report['bbox']['buckets']:
        for kind, (excess, chance) in (('', plain), ('matched_', matched)):
            null = row['AP'] - excess
            row |= {f'AP_{kind}null': null, f'AP_{kind}null_ci': [null - .02, null + .02], f'AP_{kind}excess': excess,
                    f'AP_{kind}excess_ci': [excess - .03, excess + .02], f'AP_{kind}excess_p': chance}
    page = Page(render_page([Run('tied', report)]))
    text = ' '.join(page.text.split())
    side = 'below' if plain[0] < 0 else 'above'
    assert f'{100 * abs(plain[0]):.1f} points {side} random sets of 30 images' in text
    assert verdict in text and 'such as truncation or blur, are not ruled out' in text
    last = page.tables['bbox'] if 'excess' in page.tables['bbox'][0] else None
    assert last is None or last[-1][0] == '[0.8,1]'


def test_page_of_old_reports():
    report = make_old_report()
    page = Page(render_page([Run('old', report)]))
    assert len(check_self_contained(page)) == 4
    assert page.tables['segm'] == expected_rows(report['segm'])
    assert 'Controls' not in page.text


@pytest.mark.usefixtures('blank_figures')
def test_controls_section():
    report = make_report(iou_types=('bbox',))
    text = render_page([Run('tied', report)])
    rows = text.partition('<h3>Controls</h3>')[2]
    assert 'the same 3 categories' in rows
    for bucket in report['bbox']['buckets']:
        for key in ('instances_small', 'instances_medium', 'instances_large'):
            assert f'<td>{bucket[key]}</td>' in rows
        for key in ('AP', 'AP_shared', 'AP50_shared', 'AP75_shared'):
            assert f'<td>{100 * bucket[key]:.1f}</td>' in rows


@pytest.mark.usefixtures('blank_figures')
def test_tables_fit_into_1100_pixels():
    further = [make_report(5, unit='instance')]
    page = Page(render_page([Run('tied', make_report(further=further)), Run('other', make_report(1, further=further))]))
    assert len(page.attributes('table')) == len(page.widths) > 8
    for longest in page.widths:  # the longest line of each column
        assert sum(8 * length + 21 for length in longest.values()) < 1100 - 32  # 8 pixels a letter, and the padding of a cell


def test_page_of_several_runs():
    runs = [Run(f'run {seed}', make_report(seed, iou_types=('bbox',))) for seed in range(3)]
    page = Page(render_page(runs))
    check_self_contained(page)
    table = page.tables['bbox, all runs']
    assert table[0] == ['r', *(f'{key}run {seed}' for key in ('AP', 'AP75') for seed in range(3))]
    for number, row in enumerate(table[2:]):
        expected = [100 * run.report['bbox']['buckets'][number][key] for key in ('AP', 'AP75') for run in runs]
        assert [float(cell.split()[0]) for cell in row[1:]] == pytest.approx(expected, abs=.05001)
    for run in runs:
        assert page.tables[f'bbox, {run.name}'] == expected_rows(run.report['bbox'])
    gains = page.tables['Images with r in [0.8,1] (30 images, 210 instances); in %']
    assert [row[-1] for row in gains[1:]] == ['-'] * 3  # no paired differences
    differences = [dict(difference=.02, low=-.01, high=.05), dict(difference=-.03, low=-.04, high=-.02)]
    buckets = [{'name': bucket['name'], 'AP': {'differences': differences}} for bucket in runs[0].report['bbox']['buckets']]
    page = Page(render_page(runs, comparison={'evaluations': [{'bbox': {'buckets': buckets}}]}))
    gains = page.tables['Images with r in [0.8,1] (30 images, 210 instances); in %']
    assert [row[-1].split()[0] for row in gains[1:]] == ['-', '+2.0−1.0' if '+2.0−1.0' in gains[2][-1] else '+2.0',
                                                         '−3.0−4.0' if '−3.0−4.0' in gains[3][-1] else '−3.0']


@pytest.mark.usefixtures('blank_figures')
def test_extra_evaluations_have_sections():
    further = [make_report(5, edges=(0, 1), unit='instance', iou_types=('bbox',))]
    further[0]['definition'] = 'covered, same category'
    page = Page(render_page([Run('tied', make_report(iou_types=('bbox',), further=further))]))
    check_self_contained(page)
    assert 'AP over r: covered, same category, by instance' in page.text
    assert 'Only instances of the same category occlude each other' in page.text
    anchors = {attributes['href'][1:] for attributes in page.attributes('a')}
    assert anchors <= {attributes['id'] for _, attributes in page.tags if 'id' in attributes}
    assert len(anchors) == 2


def test_rejects_incomparable_runs():
    first = Run('first', make_report())
    for other, message in ((make_report(edges=(0, 1)), 'same buckets'), (make_report(iou_types=('bbox',)), 'same IoU types'),
                           (make_report(unit='instance'), 'same ratio'), (make_report(empty=(1,)), 'same images and instances')):
        with pytest.raises(ValueError, match=message):
            render_page([first, Run('second', other)])
    with pytest.raises(ValueError, match='at least one run'):
        render_page([])


HOSTILE = '</title><script>alert(1)</script><img src="http://example.org/x" onerror="y">&amp; $x_1$ _'


def test_hostile_names_are_escaped(tmp_path):
    reports = [make_report(seed, iou_types=('bbox',)) for seed in range(2)]
    reports[0]['data'] = HOSTILE
    page = Page(render_page([Run(HOSTILE, reports[0]), Run(f'_{HOSTILE}', reports[1])],
                            drawn(tmp_path, HOSTILE, 'a"><script>.png')))
    check_self_contained(page)
    assert f'bbox, {HOSTILE}' in page.tables
    assert 'a"><script>.png: r = 0.50' in page.text


def drawn(folder, category='thing', file_name='a.png'):
    """Return the only image of a data set, with one false positive."""
    Image.new('RGB', (64, 48), 'gray').save(folder / file_name)
    box = dict(category_id=3, iscrowd=0, bbox=[8, 8, 16, 16], area=256, segmentation=[[8, 8, 24, 8, 24, 24, 8, 24]])
    data = dict(images=[dict(id=5, height=48, width=64, file_name=file_name)], categories=[dict(id=3, name=category)],
                annotations=[dict(box, id=1, image_id=5), dict(box, id=2, image_id=5, bbox=[16, 8, 16, 16])])
    false = dict(image_id=5, category_id=3, score=.9, segmentation=dict(size=[48, 64], counts=[1500, 20, 1552]))
    result = evaluate(data, [false], Evaluation(edges=(0, .5, 1)))
    paths = image_paths(result.ground_truth, folder)
    return draw_worst(result, paths)


@pytest.mark.usefixtures('blank_figures')
def test_shows_worst_images_with_counts(tmp_path):
    page = Page(render_page([Run('tied', make_report())], drawn(tmp_path)))
    jpegs = [image for image in check_self_contained(page) if image['src'].startswith('data:image/jpeg')]
    assert len(jpegs) == 1
    assert (jpegs[0]['width'], jpegs[0]['height']) == ('480', '360')
    assert 'a.png: r = 0.50, F1 0.00; 0 of 2 found, 2 missed, 0 duplicates, 1 unmatched' in page.text
    assert 'by segm at IoU 0.5' in page.text


@pytest.mark.usefixtures('blank_figures')
def test_page_without_pictures_explains_how_to_add_them():
    assert '--images FOLDER' in Page(render_page([Run('tied', make_report())])).text


@pytest.mark.usefixtures('blank_figures')
def test_failure_keeps_previous_page(tmp_path, monkeypatch):
    path = tmp_path / 'report.html'
    assert write_page(path, [Run('tied', make_report())]) == path
    before = path.read_bytes()
    monkeypatch.setattr('pathlib.Path.write_text', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(path, [Run('other', make_report(1))])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_page_is_deterministic():
    assert render_page([Run('tied', make_report())]) == render_page([Run('tied', make_report())])


@pytest.mark.usefixtures('blank_figures')
def test_no_shared_categories_are_left_out():
    report = make_report(iou_types=('bbox',))
    report['shared_categories'] = 0
    for row in (report['bbox']['all'], *report['bbox']['buckets']):
        row.update({key: None for key in row if key.endswith('_shared')})
    assert 'shared categories' not in render_page([Run('tied', report)])
    assert 'AP_shared' not in format_tables(report)


@pytest.mark.usefixtures('blank_figures')
def test_a_measure_without_values_has_no_figure():
    def figures(report):
        return [tags['alt'] for tag, tags in Page(render_page([Run('a', report)])).tags if tag == 'img']

    report = evaluate(*many(num_images=30)).report
    before = figures(report)
    assert 'bbox loc_error over the occlusion ratio r; the numbers are in the table below.' in before
    for bucket in report['bbox']['buckets']:
        bucket['loc_error'] = None
    assert figures(report) == [alt for alt in before if 'loc_error' not in alt]
