"""The flags that tools/train.py and tools/test.py share, named as in mmdet's tools."""

import argparse
import os
import re

from mmengine.config import DictAction

#: dict(...) or {key: ...}, alone or in a list.
_DICT = re.compile(r"""[=\[(,]\s*(dict\s*\(|\{\s*['"]?\w+['"]?\s*:)""")


class _Settings(DictAction):
    """mmengine's KEY=VALUE reader, with an error that says what was expected."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[str],
                 option_string: str | None = None) -> None:
        for value in values:
            if '=' not in value:
                raise ValueError(f'{option_string} {value}: expected KEY=VALUE, for example train_cfg.max_epochs=1')
            if _DICT.search(value):
                raise ValueError(f'{option_string} {value}: dicts cannot be given on the command line; set their values one by '
                                 'one, as model.backbone.depth=101, or write a config file with _base_ = the config')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError) as error:  # brackets that do not pair, or commas in words with brackets
            raise ValueError(f'{option_string} {" ".join(values)}: expected numbers, words or lists such as [1,2]') from error


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the config and the flags that both tools have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or package::folder/file.py for one that a package ships (mmdet::...)')
    parser.add_argument('--work-dir', help="where results go; default work_dirs/<config's name>")
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides settings of the config."""
    parser.add_argument('--cfg-options', nargs='+', action=_Settings, metavar='KEY=VALUE',
                        help="override settings of the config, for example train_cfg.max_epochs=1 'data.list=[a,b]'")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and tell mmengine the local rank where the launcher passed it as a flag only."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
