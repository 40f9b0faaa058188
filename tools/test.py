#!/usr/bin/env python
"""Evaluate a checkpoint with an mmtied, mmdet or mmpretrain config."""

import argparse
import os


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_config, add_launcher

    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help="output folder (default: work_dirs/<config's name>)")
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save images with predictions to work_dir/timestamp/DIR')
    parser.add_argument('--wait-time', type=float, default=2,
                        help='seconds to show each image with --show (default: %(default)s)')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation with the config's tta_model")
    add_cfg_options(parser)
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    """Build a Runner from the config and the command line, and test."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmtied.cli import log_after_checks, user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(longest=1000), safe_loading(args.trust_checkpoint):  # room for advice on each data set
        from mmtied.launch import checkpoints, config, runner
        from mmtied.training.resume import safe_saving
        cfg = config.config_of_run(args)
        checkpoints.check_checkpoint(args.checkpoint)
        cfg.load_from = args.checkpoint
        if args.show or args.show_dir:
            config.draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
        if args.tta:
            config.use_tta(cfg)
        dump = runner.dump_metric(cfg, args.out) if args.out else None
        runner.check_data_files(cfg, 'test')
        with log_after_checks(cfg.work_dir):
            running = runner.build_runner(cfg)
            if not args.tta:
                checkpoints.check_model(running.model, args.checkpoint)
            runner.prepare_testing(running)
        if dump is not None:
            running.test_evaluator.metrics.append(dump)
    with user_errors(only_own=True), safe_loading(args.trust_checkpoint), safe_saving(cfg.work_dir):
        running.test()
        runner.leave_processes()


if __name__ == '__main__':
    main()
