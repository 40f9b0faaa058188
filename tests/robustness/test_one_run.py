"""An output folder holds one run: killed writers, two at once, full disks, and files that were mixed by hand."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmtied.atomic import atomic_files, atomic_folder, atomic_path, save_text
from mmtied.evaluation import read_records
from mmtied.evaluation.reporting.runs import read_report, read_runs
from tests.helpers.figures import blank_figures
from tests.robustness.killed_evaluations import found, results

pytestmark = pytest.mark.usefixtures('blank_figures')


@pytest.fixture(scope='module')
def pair():
    return results(1.), results(.5)


@pytest.fixture(scope='module')
def folders(pair, tmp_path_factory):
    """Return the folders of two runs."""
    made = [tmp_path_factory.mktemp('runs') / name for name in ('one', 'two')]
    with blank_figures():
        for result, folder in zip(pair, made, strict=True):
            result.save(folder)
    return made


def test_killed_evaluations_leave_one_run():
    """In a process of its own, which forks without the threads of the tests."""
    code = Path(__file__).with_name('killed_evaluations.py')
    shown = subprocess.run([sys.executable, code, '3'], capture_output=True, text=True, check=False,
                           env={**os.environ, 'MMTIED_REGISTER': '0', 'PYTHONPATH': str(code.parents[2])})
    assert shown.returncode == 0, shown.stderr
    assert 'no mixture' in shown.stdout


@pytest.mark.parametrize('stop_at', [1, 3, 6])
def test_stopped_between_any_two_files(pair, tmp_path, monkeypatch, stop_at):
    """The files move at the end: stop before each of them."""
    pair[0].save(tmp_path)
    runs = {result.report['bbox']['all']['AP']: name for result, name in zip(pair, ('old', 'new'), strict=True)}
    moved, replace = [], Path.replace

    def stop(path, target):
        if Path(target).parent == tmp_path:
            moved.append(target)
            if len(moved) == stop_at:
                raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, 'replace', stop)
        pair[1].save(tmp_path)
    assert found(tmp_path, runs) == 'none'
    pair[1].save(tmp_path)
    assert found(tmp_path, runs) == 'new'


@pytest.mark.parametrize('name', ['report.json', 'records.npz', 'buckets.csv'])
def test_mixed_folders_are_refused(folders, tmp_path, name):
    mixed = tmp_path / 'mixed'
    shutil.copytree(folders[0], mixed)
    shutil.copy(folders[1] / name, mixed)
    for read in (lambda: read_runs([mixed]), lambda: read_records(mixed)) if name != 'buckets.csv' else (
            lambda: read_report(mixed / 'report.json'), ):
        with pytest.raises(ValueError, match='belong to different runs'):
            read()
    (mixed / 'buckets.csv').unlink()
    (mixed / 'report.json').unlink()
    assert read_records(mixed).run  # alone, it is right


def test_files_of_an_older_run_do_not_stay(pair, tmp_path):
    (tmp_path / 'ap_over_r_bbox.pdf').write_text('old')
    (tmp_path / 'mine.txt').write_text('stays')
    pair[1].save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert 'ap_over_r_bbox.pdf' not in names and {'ap_over_r_bbox.png', 'mine.txt'} < names


def write_often(folder, text, barrier):
    barrier.wait()
    for _ in range(30):
        with atomic_files(folder, 'a', 'b|c') as temporary:
            for name in 'abc':
                (temporary / name).write_text(text)


def test_two_writers_leave_files_of_one(tmp_path):
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(2)
    writers = [context.Process(target=write_often, args=(tmp_path, text, barrier)) for text in ('first', 'second')]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b', 'c']
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 1


def test_full_disk_is_named_and_changes_nothing(pair, tmp_path, monkeypatch):
    pair[0].save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('numpy.savez_compressed', full)
    with pytest.raises(OSError, match='No space left on device') as caught:
        pair[1].save(tmp_path)
    assert caught.value.filename.endswith('records.npz')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def fill(path):
    """Raise what writing to a full disk raises: without the name of a file."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(('context', 'write'), [
    (lambda folder: atomic_path(folder / 'x'), fill),
    (lambda folder: atomic_path(folder / 'x'), lambda path: save_text(path, 'a')),
    (lambda folder: atomic_folder(folder / 'x'), fill),
    (lambda folder: atomic_folder(folder / 'x'), lambda path: save_text(path / 'b', 'a')),
    (lambda folder: atomic_files(folder / 'x', 'b', 'b'), fill),
    (lambda folder: atomic_files(folder / 'x', 'b', 'b'), lambda path: save_text(path / 'b', 'a'))])
def test_full_disk_is_named_by_what_the_user_named(tmp_path, monkeypatch, context, write):
    """Not by a temporary name, nor left out."""
    monkeypatch.setattr(Path, 'write_text', lambda path, *_, **__: fill(path))
    with pytest.raises(OSError, match='No space left on device') as caught, context(tmp_path) as path:
        write(path)
    assert caught.value.filename in (str(tmp_path / 'x'), str(tmp_path / 'x/b'))
    assert not [path for path in tmp_path.rglob('*') if path.is_file() or path.name.startswith('.')]


def test_left_over_files_are_swept(tmp_path):
    """Those of killed processes, and not those that a living one has locked."""
    (tmp_path / '.mmtied-abcdefgh').mkdir()
    (tmp_path / '.page.abcdefgh.html').write_text('half')
    (tmp_path / '.page.html').write_text('of somebody else')
    with atomic_path(tmp_path / 'page.html') as first:
        first.write_text('first')
        with atomic_path(tmp_path / 'page.html') as second, atomic_files(tmp_path, 'a', 'a') as files:
            second.write_text('second')
            (files / 'a').write_text(json.dumps('a'))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.page.html', 'a', 'page.html']
    assert (tmp_path / 'page.html').read_text() == 'first'
