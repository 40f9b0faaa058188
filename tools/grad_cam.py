#!/usr/bin/env python
"""Draw where networks look (Grad-CAM): the images in the first row, then a row for each detector or classifier.

    mmtied cam CONFIG CHECKPOINT.pth [CONFIG CHECKPOINT.pth ...] --images a.jpg b.jpg --out cam.png
    mmtied cam CONFIG CHECKPOINT.pth ... --images val2017/ --annotations instances_val2017.json --bucket 0.8 0.9 --out cam.png

A detector's map is that of one instance, which is outlined: with annotations the most occluded one of each image, otherwise the
first detector's most confident detection. A classifier's map is that of --category or of the class that it predicts.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_ratio_options, add_reading_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('networks', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='config and checkpoint of each network; configs as package::folder/file.py too')
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH',
                        help='image files, or folders of images; with --annotations the folder of its images')
    parser.add_argument('--out', required=True, help='file to write: .png, .jpg, .pdf or .svg')
    parser.add_argument('--annotations', help='COCO instances file, by which images and instances are chosen')
    parser.add_argument('--bucket', nargs=2, type=float, default=(.8, .9), metavar=('LOW', 'HIGH'),
                        help='with --annotations: images with LOW <= r < HIGH (default: 0.8 0.9)')
    add_ratio_options(parser)
    add_reading_options(parser)
    parser.add_argument('--skip-missing', action='store_true', help='with --annotations: skip images whose files are missing')
    parser.add_argument('--num', type=int, default=4, help='number of images (4)')
    parser.add_argument('--seed', type=int, default=0, help='chooses the images (0)')
    parser.add_argument('--category', help='name of the class to look for, without --annotations')
    parser.add_argument('--layers', nargs='+', metavar='NAME',
                        help="layers whose maps are averaged (the backbone's last output)")
    parser.add_argument('--names', nargs='+', help='name of each network in the figure')
    parser.add_argument('--device', help='such as cuda:1 (a GPU where there is one)')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override settings of every config')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that hold more than tensors and plain values, which runs code that is in them')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Choose, run, draw, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors
    from mmtied.compat import require
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        require(['mmengine', 'mmcv'], 'Running a config')
        require(['pytorch_grad_cam', 'matplotlib', 'PIL'], 'Grad-CAM')
        from mmtied.analysis.picture_grid import check_suffix, write_grid
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.buckets import bucket_between
        from mmtied.evaluation.inputs.images import check_folder
        from mmtied.evaluation.options import reading_options
        from mmtied.launch.cam import detected_cases, draw_cam, draw_image, occluded_cases
        from mmtied.launch.networks import chosen_images, load_networks

        check_suffix(args.out)
        check_can_write(args.out, '--out')
        if args.annotations and len(args.images) > 1:
            raise ValueError(f'--images: with --annotations the folder of its images is expected, got {len(args.images)} paths')
        if args.annotations and args.category:
            raise ValueError('--category: not with --annotations, which choose the instance of each image')
        if args.annotations:
            check_folder(args.images[0])
            ground_truth = read_ground_truth(args.annotations, image_folder=args.images[0], **reading_options(args))
            cases = occluded_cases(ground_truth, args.images[0], bucket_between(*args.bucket), args.num, args.definition,
                                   args.same_category, args.seed, args.skip_missing)
            networks = load_networks(args.networks, args.names, args.cfg_options, args.device)
        else:
            paths = chosen_images(args.images, args.num, args.seed)
            networks = load_networks(args.networks, args.names, args.cfg_options, args.device)
            cases = detected_cases(networks, paths, args.category)
        rows = {'image': [draw_image(case) for case in cases]}
        for network in networks:
            rows[network.name] = [draw_cam(network, case, args.layers) for case in cases]
            print(f'{network.name}: {", ".join(panel.text for panel in rows[network.name])}')
        write_grid(rows, args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
