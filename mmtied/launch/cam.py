"""Grad-CAM of several networks side by side, for given images or for those chosen by occlusion."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmtied.analysis.example_images import Choice, choose_images, most_occluded
from mmtied.analysis.grad_cam import NotFoundError, class_target, find_instance, grad_cam, instance_target
from mmtied.cli import warn
from mmtied.evaluation.inputs import GroundTruth
from mmtied.evaluation.inputs.images import image_file, read_image
from mmtied.evaluation.occlusion import instance_ratios
from mmtied.evaluation.reporting.pictures import box_corners, draw_boxes
from mmtied.plotting import Panel

from .networks import Network, Prepared, class_label, classify, detect, prepare

#: Color of the chosen instance's outline.
_OUTLINE = '#00FFFF'
#: Longest side of the pictures, in pixels.
_LONGEST = 480


class Case(NamedTuple):
    """An image and the class or instance to explain in it.

    Attributes:
        path: The image file.
        category: Name of the class; None for each classifier's prediction, or if the detector's classes have no names.
        box_xywh: Box of the instance in pixels, for detectors.
        text: Caption of the image.
        label: Label of a detected instance, for detectors whose classes have no names.
    """

    path: Path
    category: str | None = None
    box_xywh: Sequence[float] | None = None
    text: str = ''
    label: int | None = None


def occluded_cases(ground_truth: GroundTruth, images: str | os.PathLike, choice: Choice) -> list[Case]:
    """Choose images, and the most occluded instance of each; see `example_images.choose_images`."""
    cases, ratios = [], instance_ratios(ground_truth, choice.definition, choice.same_category)
    for image, ratio in choose_images(ground_truth, images, choice):
        instance = most_occluded(ground_truth, image, ratios)
        name, = ground_truth.names_of(ground_truth.category[[instance]])
        cases.append(Case(image_file(images, ground_truth.file_names[image]), name, ground_truth.boxes_xywh[instance].tolist(),
                          f'r = {ratio:.2f}: {name}'))
    return cases


def detected_cases(networks: Sequence[Network], paths: Sequence[Path], category: str | None = None) -> list[Case]:
    """Return images with the most confident detection of the first detector; without a detector, only the images.

    With `category`, only that class counts. Images without a detection are left out with a warning.
    """
    detector = next((network for network in networks if network.is_detector), None)
    if detector is None:
        return [Case(path, category, text=category or '') for path in paths]
    label, cases = None if category is None else class_label(detector, category), []
    for path in paths:
        with torch.no_grad():
            found = detect(detector, prepare(detector, path))
        found = found if label is None else found[found.labels == label]
        if not len(found.scores):
            warn(f'{detector.name} finds no {category or "object"} in {path}; the image is left out')
            continue
        best = int(found.scores.argmax())
        left, top, right, bottom = found.bboxes[best].tolist()
        found_label = int(found.labels[best])
        name = detector.class_name(found_label)
        cases.append(Case(path, name if detector.classes else None, (left, top, right - left, bottom - top), name, found_label))
    if not cases:
        raise ValueError(f'{detector.name} finds no {category or "object"} in any of the {len(paths)} images')
    return cases


def draw_image(case: Case) -> Panel:
    """Draw the image of a case, with its instance outlined."""
    return Panel(_outlined(np.asarray(read_image(case.path)), case.box_xywh), case.text)


def draw_cam(network: Network, case: Case, layers: Sequence[str] | None = None) -> Panel:
    """Draw the Grad-CAM of a network, for a detector over the image, for a classifier over its preprocessed input.

    The maps of the named layers (default: the backbone's last output) are averaged.
    """
    modules = None if layers is None else [_layer(network, name) for name in layers]
    prepared = prepare(network, case.path)
    draw = _detector_cam if network.is_detector else _classifier_cam
    return draw(network, case, prepared, modules)


def _classifier_cam(network: Network, case: Case, prepared: Prepared, modules: list | None) -> Panel:
    scores = classify(network, prepared)
    known = case.category is not None and (case.box_xywh is None or case.category in network.classes)
    label = class_label(network, case.category) if known else int(scores.argmax())
    cam = grad_cam(network.model, lambda inputs: network.model(inputs, mode='tensor')[0], prepared.inputs, class_target(label),
                   modules)
    return Panel(_tinted(prepared.pixels, cam, prepared), f'{network.class_name(label)} {float(scores[label]):.2f}')


def _detector_cam(network: Network, case: Case, prepared: Prepared, modules: list | None) -> Panel:
    by_name = case.label is None or (case.category is not None and network.classes)
    label = class_label(network, case.category) if by_name else case.label
    left, top, width, height = case.box_xywh
    box = (left, top, left + width, top + height)
    pixels, scores = np.asarray(read_image(case.path)), []

    def run(inputs: torch.Tensor) -> object:
        found = detect(network, prepared._replace(inputs=inputs))
        scores.append(found.scores[find_instance(found, box, label)].item())
        return found

    try:
        cam = grad_cam(network.model, run, prepared.inputs, instance_target(box, label), modules)
    except NotFoundError:
        return Panel(_outlined(pixels, case.box_xywh), 'not found')
    return Panel(_outlined(_tinted(pixels, cam, prepared), case.box_xywh),
                 f'{network.class_name(label)} {scores[0]:.2f}')


def _layer(network: Network, name: str) -> torch.nn.Module:
    try:
        return network.model.get_submodule(name)
    except AttributeError:
        near = [f'backbone.{child}' for child, _ in network.model.backbone.named_children()]
        raise ValueError(f'{network.name}: no layer named {name!r}; the backbone has {", ".join(near[-6:])}') from None


def _tinted(pixels: np.ndarray, cam: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Blend a map (0 to 1) of a prepared image into a picture of it, from blue to red."""
    import matplotlib
    from PIL import Image

    own_height, own_width = prepared.pixels.shape[:2]  # without padding
    cam = Image.fromarray(np.float32(cam[:own_height, :own_width]))
    large = np.asarray(cam.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))
    return np.uint8(np.round(.5 * pixels + 127.5 * matplotlib.colormaps['jet'](np.clip(large, 0, 1))[..., :3]))


def _outlined(pixels: np.ndarray, box_xywh: Sequence[float] | None) -> np.ndarray:
    """Resize a picture to `_LONGEST` pixels, and outline a box."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    scale = _LONGEST / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    if box_xywh is not None:
        draw_boxes(ImageDraw.Draw(picture), box_corners(np.array([box_xywh]), scale, picture.size), [_OUTLINE], 3)
    return np.asarray(picture)
