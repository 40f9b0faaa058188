#!/usr/bin/env python
"""Write docs/coverage.md: where each table and figure of the papers is.

With --check it writes nothing, and its exit code is 1 if the page is stale.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE = DOCS / 'coverage.md'


def main(argv: Sequence[str] | None = None) -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='compare the page instead of writing it')
    check = parser.parse_args(argv).check
    sys.path.insert(0, str(DOCS))
    from coverage_page import render_page

    from mmtied.atomic import save_text
    text = render_page()
    stale = not PAGE.is_file() or PAGE.read_text(encoding='utf-8') != text
    if check:
        print('docs/coverage.md is stale; run python tools/coverage_table.py' if stale else 'docs/coverage.md is up to date')
        return int(stale)
    if stale:
        save_text(PAGE, text)
        print('wrote docs/coverage.md')
    return 0


if __name__ == '__main__':
    sys.exit(main())
