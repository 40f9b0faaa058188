#!/usr/bin/env python
"""Train a backbone on unlabeled images to reproduce the feature maps of a trained one.

    mmtied distill torchvision://resnet50 configs/retinanet_tiedr50_1x.py --images data/coco/train2017

Writes weights for `mmtied train CONFIG --backbone-checkpoint FILE`. Any folder of images will do.
"""

import argparse
import os
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_launcher

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('teacher', help='torchvision://NAME, or a config (file or package::path) whose backbone is the teacher')
    parser.add_argument('student', help='config (file or package::path) whose backbone is trained')
    parser.add_argument('--images', required=True, metavar='DIR', help='image folder, searched recursively')
    parser.add_argument('--weights', metavar='FILE', help="the teacher's checkpoint, or the name of torchvision weights")
    parser.add_argument('--stages', nargs='+', metavar='NAME',
                        help='stages to match, as NAME if both have it or as STUDENT=TEACHER (default: layer1 to layer4)')
    parser.add_argument('--loss', default='mse', choices=['cosine', 'mse'],
                        help='distance of feature maps (default: %(default)s)')
    parser.add_argument('--work-dir', help="folder for checkpoints and logs (default: work_dirs/distill_<student's name>)")
    parser.add_argument('--out', metavar='FILE', help="file for the backbone's weights (default: backbone.pth in the work-dir)")
    parser.add_argument('--iters', type=int, default=20000, help='training iterations (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=32, help='images per iteration and process (default: %(default)s)')
    parser.add_argument('--size', type=int, default=224, help='height and width of the crops in pixels (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-3, help='learning rate of AdamW (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=2,
                        help='image loading processes; 0 loads in the main process (default: %(default)s)')
    parser.add_argument('--save-every', type=int, default=1000, help='iterations between checkpoints (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: %(default)s)')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--resume', action='store_true', help='resume from the last checkpoint in the work-dir')
    add_cfg_options(parser)
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    """Train, and write the weights."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmtied.cli import log_after_checks, user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(longest=1000), safe_loading(args.trust_checkpoint):  # room for advice on each data set
        from mmtied.atomic import check_can_write
        from mmtied.launch import checkpoints, config, distill, runner
        from mmtied.training.resume import safe_saving
        hook = {'teacher': args.teacher, 'weights': args.weights, 'loss': args.loss}
        if args.stages:
            hook['stages'] = distill.parse_stages(args.stages)
        cfg = distill.distillation_config(
            config.load_config(args.student, args.cfg_options), hook, args.images, iters=args.iters, batch_size=args.batch_size,
            size=args.size, lr=args.lr, workers=args.workers, save_every=args.save_every, seed=args.seed)
        cfg.launcher = args.launcher
        cfg.work_dir = args.work_dir or str(Path('work_dirs', f'distill_{Path(args.student.split("::")[-1]).stem}'))
        out = args.out or str(Path(cfg.work_dir, 'backbone.pth'))
        check_can_write(cfg.work_dir, '--work-dir', folder=True)
        check_can_write(out, '--out')
        if args.amp:
            config.use_amp(cfg)
        if args.resume:
            config.use_resume(cfg, 'auto')
        checkpoints.check_initial_weights(cfg)
        with log_after_checks(cfg.work_dir):
            running = runner.build_runner(cfg)
            runner.prepare_training(running)
    with user_errors(only_own=True, after_interrupt=lambda: config.how_to_resume(cfg.work_dir, sys.argv)), \
            safe_loading(args.trust_checkpoint), safe_saving(cfg.work_dir):
        running.train()
        distill.write_backbone(running, out)
        runner.leave_processes()
    print(f'{out}: weights for mmtied train CONFIG --backbone-checkpoint {out}')


if __name__ == '__main__':
    main()
