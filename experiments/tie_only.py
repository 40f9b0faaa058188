#!/usr/bin/env python
"""Tie the teacher of the warm start, and evaluate the nearest tied weights without further training.

Requires the teacher's checkpoint from `python experiments/run.py occlusion --only r50/seed0`. Existing results are kept.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Limits of the root mean square error, tying the layers that save most first; None ties all.
ERROR_BUDGETS = (.2, .4, .6, None)


def main() -> None:
    """Evaluate each budget without results."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', choices=('cpu', 'gpu'), default='cpu', help='size of the experiment (default: %(default)s)')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder of the data sets (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/experiments'),
                        help='folder for checkpoints and logs (default: %(default)s)')
    args = parser.parse_args()
    from experiments import occlusion, warm_start
    from experiments.runs import use_one_thread
    from mmtied.atomic import save_text
    from mmtied.cli import user_errors
    with user_errors():
        use_one_thread()
        occlusion.prepare(args.preset, args.data)
        weights = str(warm_start.trained_teacher(args.preset, args.work_dir))
        path = results_path(args.preset)
        done = read_results(args.preset)
        for budget in ERROR_BUDGETS[len(done):]:
            done.append(evaluate_tied(occlusion.make_config('r50', args.preset, args.data), weights, budget, args.work_dir))
            print(done[-1], flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_text(path, json.dumps(done, indent=1) + '\n')


def results_path(preset: str) -> Path:
    """Return the path of the results file."""
    from experiments.runs import RESULTS
    return RESULTS / preset / 'warm_start/tied_only.json'


def read_results(preset: str) -> list[dict]:
    """Return a dict for each evaluated budget: 'budget', 'layers', 'weights', 'tied_weights', 'error', 'AP'."""
    path = results_path(preset)
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


def evaluate_tied(cfg, weights: str, budget: float | None, work_dir: Path) -> dict:
    """Tie a trained detector's backbone within an error budget, and evaluate the detector."""
    from experiments.warm_start import NUM_BLOCKS
    from mmtied.launch.checkpoints import build_trained
    from mmtied.launch.runner import build_runner
    from mmtied.surgery import tie
    tied, changes = tie(build_trained(cfg, weights), NUM_BLOCKS, ['backbone.*'], budget)
    cfg.work_dir, cfg.experiment_name = str(work_dir / 'tied_only'), f'tied_only_{budget}'
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    del cfg.default_hooks.occlusion
    runner = build_runner(cfg)
    runner.model = tied
    return {'budget': budget, 'layers': len(changes), 'weights': sum(change.weights for change in changes),
            'tied_weights': sum(change.tied_weights for change in changes),
            'error': (sum(change.relative_error**2 for change in changes) / len(changes))**.5,
            'AP': float(runner.val()['coco/bbox_mAP'])}


if __name__ == '__main__':
    main()
