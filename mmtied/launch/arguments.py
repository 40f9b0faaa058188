"""The flags that tools/train.py and tools/test.py share, named as in mmdet's tools."""

import argparse
import os

from mmengine.config import DictAction


class _Settings(DictAction):
    """mmengine's KEY=VALUE reader, with an error that says what was expected."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[str],
                 option_string: str | None = None) -> None:
        for value in values:
            if '=' not in value:
                raise ValueError(f'{option_string} {value}: expected KEY=VALUE, for example train_cfg.max_epochs=1')
        super().__call__(parser, namespace, values, option_string)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the config and the flags that both tools have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or package::folder/file.py for one that a package ships (mmdet::...)')
    parser.add_argument('--work-dir', help="where results go; default work_dirs/<config's name>")
    parser.add_argument('--cfg-options', nargs='+', action=_Settings, metavar='KEY=VALUE',
                        help="override settings of the config, for example train_cfg.max_epochs=1 'data.list=[a,b]'")
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and tell mmengine the local rank where the launcher passed it as a flag only."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
