#!/usr/bin/env python
"""Evaluate a checkpoint with an mmtied, mmdet or mmpretrain config."""

import argparse

from mmtied.cli import user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line; the flags are those of mmdet's tools/test.py."""
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or package::path for one that a package ships (mmdet::...)')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help="where metrics go; default work_dirs/<config's name>")
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='write images with predictions into work_dir/timestamp/DIR')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show leaves each image on the screen')
    parser.add_argument('--tta', action='store_true', help="test time augmentation, as the config's tta_model says")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config, for example test_dataloader.batch_size=4')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Build a Runner from the config and the command line, and test."""
    with user_errors():
        args = parse_args()
        from mmengine.registry import RUNNERS
        from mmengine.runner import Runner

        from mmtied.launch import config, data, distributed, predictions, weights
        config.set_local_rank(args.local_rank)
        cfg = config.load_config(args.config, args.cfg_options)
        cfg.launcher = args.launcher
        cfg.work_dir = args.work_dir or cfg.work_dir
        weights.check_checkpoint(args.checkpoint, 'checkpoint')
        cfg.load_from = args.checkpoint
        if args.show or args.show_dir:
            predictions.draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
        if args.tta:
            predictions.use_tta(cfg)
        dump = predictions.dump_metric(cfg, args.out) if args.out else None
        data.check_data_files(cfg, 'test')
        distributed.prepare_cpu_processes(cfg)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if dump is not None:
            runner.test_evaluator.metrics.append(dump)
        runner.test()


if __name__ == '__main__':
    main()
