"""docs/extend.md: its snippets run in order and print what their comments say."""

import os
import re
import subprocess
import sys

from tests.helpers.pages import ROOT, read_page, snippets


def test_snippets_print_what_their_comments_say(tmp_path):
    """A process of its own, since the snippets register names."""
    code = '\n'.join(snippets(read_page('extend.md')))
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, text=True, capture_output=True,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == re.findall(r'print\(.*\)  # (.*)', code)
    assert (tmp_path / 'ap90.png').stat().st_size > 0


def test_files_that_the_page_names_exist():
    for path in re.findall(r'`(mmtied/[\w/]+(?:\.py|/))`', read_page('extend.md')):
        assert (ROOT / path).exists(), path
