#!/usr/bin/env python
"""Count every network of the papers and write docs/model_zoo.md and configs/metafile.yml.

    python tools/model_table.py            # write both
    python tools/model_table.py --check    # write nothing; exit code 1 where a file is stale

A few minutes on one core. mmdet and mmpretrain are needed for the untied networks.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then write or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='compare the files instead of writing them')
    check = parser.parse_args(argv).check
    from mmtied.atomic import save_text
    from mmtied.cli import user_errors
    from mmtied.compat import require
    with user_errors():
        require(['mmengine', 'mmcv', 'mmdet', 'mmpretrain'], 'The model table')
        sys.path.insert(0, str(DOCS))
        from model_zoo_page import measure_paper, render_metafile, render_page

        from mmtied.analysis.published import load_papers
        configs = ROOT / 'configs'
        papers = [(paper, measure_paper(paper, configs)) for paper in load_papers()]
        texts = {ROOT / 'docs' / 'model_zoo.md': render_page(papers, configs),
                 configs / 'metafile.yml': render_metafile(papers, configs)}
        stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding='utf-8') != text]
        for path in stale:
            name = path.relative_to(ROOT)
            if check:
                print(f'{name} is stale; run python tools/model_table.py', file=sys.stderr)
            else:
                save_text(path, texts[path])
                print(f'wrote {name}')
        if check and not stale:
            print(f'{" and ".join(str(path.relative_to(ROOT)) for path in texts)} are up to date')
        return int(check and bool(stale))


if __name__ == '__main__':
    sys.exit(main())
