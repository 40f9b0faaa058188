#!/usr/bin/env python
"""Evaluate a checkpoint with an mmtied, mmdet or mmpretrain config."""

from mmtied.cli import user_errors


def main() -> None:
    """Build a Runner from the config and the command line, and test."""
    with user_errors():
        from mmtied.launch import arguments, config, data, predictions, runner, weights
        parser = arguments.make_parser(__doc__)
        parser.add_argument('checkpoint', help='checkpoint file')
        parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
        parser.add_argument('--show', action='store_true', help='show predictions in a window')
        parser.add_argument('--show-dir', metavar='DIR', help='write images with predictions into work_dir/timestamp/DIR')
        parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show leaves each image on the screen')
        parser.add_argument('--tta', action='store_true', help="test time augmentation, as the config's tta_model says")
        args = arguments.parse(parser)

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
        running = runner.build_runner(cfg)
        if not args.tta:
            weights.check_model(running.model, args.checkpoint)
        runner.prepare_testing(running)
        if dump is not None:
            running.test_evaluator.metrics.append(dump)
    with user_errors(only_own=True):
        running.test()
        runner.leave_processes()


if __name__ == '__main__':
    main()
