#!/usr/bin/env python
"""Train a model from an mmtied, mmdet or mmpretrain config."""

import argparse
import os
import sys


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_config, add_launcher

    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser)
    parser.add_argument('--work-dir', help="output folder (default: work_dirs/<config's name>)")
    parser.add_argument('--backbone-checkpoint', metavar='FILE',
                        help="trained weights for the detector's backbone; also freezes stage 1 and BatchNorm, as mmdet does")
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='FILE',
                        help='resume from FILE, or from the latest checkpoint in the work_dir if FILE is left out')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    add_cfg_options(parser)
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    """Build a Runner from the config and the command line, and train."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmtied.cli import log_after_checks, user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(longest=1000), safe_loading(args.trust_checkpoint):  # room for advice on each data set
        from mmtied.launch import checkpoints, config, runner
        from mmtied.training.resume import safe_saving
        cfg = config.config_of_run(args)
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            config.use_amp(cfg)
        if args.auto_scale_lr:
            config.use_auto_scale_lr(cfg)
        if args.resume or (cfg.get('resume') and not cfg.get('load_from')):
            config.use_resume(cfg, args.resume or 'auto')
        if args.backbone_checkpoint:
            checkpoints.use_backbone_checkpoint(cfg, args.backbone_checkpoint)
        checkpoints.check_initial_weights(cfg)
        runner.check_data_files(cfg, 'train', 'val')
        with log_after_checks(cfg.work_dir):
            running = runner.build_runner(cfg)
            if args.backbone_checkpoint:
                checkpoints.check_backbone(running.model, args.backbone_checkpoint)
            runner.prepare_training(running)
    with user_errors(only_own=True, after_interrupt=lambda: config.how_to_resume(cfg.work_dir, sys.argv)), \
            safe_loading(args.trust_checkpoint), safe_saving(cfg.work_dir):
        running.train()
        runner.leave_processes()


if __name__ == '__main__':
    main()
