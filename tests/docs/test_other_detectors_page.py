"""docs/other_detectors.md: its snippets run in order and print what their comments say."""

import contextlib
import io
import re
from types import SimpleNamespace

import torch

from tests.helpers.pages import read_page, snippets


def test_snippets_print_what_their_comments_say():
    code, names, printed = '\n'.join(snippets(read_page('other_detectors.md'))), {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, 'other_detectors.md', 'exec'), names)
    assert printed.getvalue().splitlines() == re.findall(r'print\(.*\)  # (.*)', code)
    boxes = SimpleNamespace(xyxy=torch.tensor([[10., 10., 50., 50.]]), conf=torch.tensor([.9]), cls=torch.tensor([1.]))
    names['metric'].reset()
    names['metric'].update(names['from_ultralytics']([SimpleNamespace(boxes=boxes)]), names['target'])
    assert 0 < names['metric'].compute()['map'] < 1
