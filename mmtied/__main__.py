"""The command `mmtied`, or `python -m mmtied`: each sub-command runs a script of tools/."""

import argparse
import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from .cli import repository_path, user_errors

#: Script in tools/ and help text of each command.
COMMANDS = {
    'eval': ('occlusion_eval', 'AP by occlusion of any detector, from its results'),
    'compare': ('compare_runs', 'differences between runs, with paired intervals'),
    'report': ('occlusion_report', 'one page from the reports of several runs'),
    'stats': ('occlusion_stats', 'how occluded a data set is'),
    'annotate': ('annotate_occlusion', 'write r into a copy of the annotations, and list the ids of each bucket'),
    'browse': ('browse_occlusion', 'example images by occlusion, with their overlaps tinted'),
    'shapes': ('make_occluded_shapes', 'make a data set of occluded shapes'),
    'train': ('train', 'train a model from a config'),
    'seeds': ('train_seeds', 'train a config with several seeds and summarize the runs'),
    'test': ('test', 'evaluate a checkpoint'),
    'deploy': ('deploy', 'export a trained model as TorchScript or ONNX'),
    'convert': ('convert_backbone', "turn a classifier's checkpoint into weights for a detector's backbone"),
    'bases': ('shared_bases', 'draw gradients of shared bases and the similarity of their coefficients'),
    'tie': ('tie', 'tie the convolutions of a trained model'),
    'distill': ('distill', 'train a backbone on unlabelled images to imitate a trained one'),
    'similarity': ('filter_similarity', 'how similar the filters of networks are'),
    'cam': ('grad_cam', 'draw where networks look (Grad-CAM)'),
    'samples': ('samples', 'draw the detections of several detectors on the same images'),
    'sizes': ('accuracy_over_size', 'plot AP over backbone size, with your own results'),
    'demo': ('demo', 'train and evaluate on generated shapes in minutes'),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command."""
    argv = sys.argv[1:] if argv is None else argv
    width = max(map(len, COMMANDS))
    commands = '\n'.join(f'  {name:{width}}  {text}' for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser('mmtied', description='Tied convolutions for MMDetection, and AP by occlusion.',
                                     epilog=f'commands:\n{commands}\n\nmmtied COMMAND --help lists the options of a command.',
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='store_true', help='print the version information for a bug report')
    parser.add_argument('command', nargs='?', help='one of the commands below')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='its arguments')
    args = parser.parse_args(argv)
    if args.version:
        from .compat import describe_environment
        print(describe_environment())
    elif args.command is None:
        parser.print_help()
    else:
        with user_errors():
            run = find_tool(args.command)
        sys.argv = [f'mmtied {args.command}', *args.arguments]
        sys.exit(run())


def find_tool(command: str):
    """Return the main function of a command's script, from the repository or the wheel's copy of tools/."""
    if command not in COMMANDS:
        nearest = get_close_matches(command, COMMANDS, 1)
        hint = f'did you mean {nearest[0]}?' if nearest else f'expected one of {", ".join(COMMANDS)}'
        raise ValueError(f'mmtied: no command {command!r}; {hint}')
    script = f'tools/{COMMANDS[command][0]}.py'
    path = repository_path(script)
    if not path.is_file():
        raise ValueError(f'mmtied: the installation lacks {script}; install mmtied again')
    return runpy.run_path(str(path))['main']


if __name__ == '__main__':
    main()
