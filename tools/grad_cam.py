#!/usr/bin/env python
"""Draw Grad-CAM maps: a row of images, then a row of maps for each detector or classifier.

    mmtied cam CONFIG CHECKPOINT.pth [CONFIG CHECKPOINT.pth ...] --images a.jpg b.jpg --out cam.png
    mmtied cam CONFIG CHECKPOINT.pth ... --images val2017/ --annotations instances_val2017.json --bucket 0.8 0.9 --out cam.png

A detector's map is for one outlined instance: with --annotations the most occluded one of each image, otherwise the first
detector's most confident detection. A classifier's map is for --category, or for its predicted class.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.cli import add_cfg_options, add_choice, add_device, add_networks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_networks(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH',
                        help='image files or folders; with --annotations, the folder of its images')
    parser.add_argument('--out', required=True, help='figure to write: .png, .jpg, .pdf or .svg')
    parser.add_argument('--annotations', help='COCO instances file, to choose images and instances by occlusion')
    add_choice(parser, 4)
    parser.add_argument('--category', help='name of the class to explain, without --annotations')
    parser.add_argument('--layers', nargs='+', metavar='NAME',
                        help="layers whose maps are averaged (default: the backbone's last output)")
    add_device(parser)
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Choose, run, draw, write."""
    args = parse_args()
    from mmtied.cli import choice_of, user_errors
    from mmtied.compat import require
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        require(['mmengine', 'mmcv'], 'Running a config')
        require(['pytorch_grad_cam', 'matplotlib', 'PIL'], 'Grad-CAM')
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.options import reading_options
        from mmtied.launch.cam import detected_cases, draw_cam, draw_image, occluded_cases
        from mmtied.launch.networks import chosen_images, load_networks
        from mmtied.plotting import check_figure_path, draw_grid, write_figure

        choice = choice_of(args)
        check_figure_path(args.out)
        if args.annotations and len(args.images) > 1:
            raise ValueError(f'--images: expected one folder with --annotations, got {len(args.images)} paths')
        if args.annotations and args.category:
            raise ValueError('--category: not allowed with --annotations, which choose the instance of each image')
        if args.annotations:
            ground_truth = read_ground_truth(args.annotations, image_folder=args.images[0], **reading_options(args))
            cases = occluded_cases(ground_truth, args.images[0], choice)
            networks = load_networks(args.networks, args.names, args.cfg_options, args.device)
        else:
            paths = chosen_images(args.images, args.num, args.seed)
            networks = load_networks(args.networks, args.names, args.cfg_options, args.device)
            cases = detected_cases(networks, paths, args.category)
        rows = {'image': [draw_image(case) for case in cases]}
        for network in networks:
            rows[network.name] = [draw_cam(network, case, args.layers) for case in cases]
            print(f'{network.name}: {", ".join(panel.text for panel in rows[network.name])}')
        write_figure(draw_grid(rows), args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
