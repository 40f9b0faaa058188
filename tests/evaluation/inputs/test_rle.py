"""Check bulk run-length decoding against pycocotools and pixel counts."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation import masks as mask_pairs
from mmtied.evaluation.inputs import rle
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.inputs.rle import rle_areas, to_rle
from mmtied.evaluation.masks import rle_pairs
from mmtied.native import library

HEIGHT, WIDTH = 60, 70


@pytest.fixture(autouse=True, params=['compiled', 'without'])
def each_way(request, monkeypatch):
    """Run every test with and without the compiled library."""
    if request.param == 'without':
        monkeypatch.setenv('MMTIED_NATIVE', '0')
    elif library() is None:
        pytest.skip('no compiled library')


def encode(mask):
    return mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))


@st.composite
def masks(draw, min_size=0, max_size=12):
    """Draw masks of one size: empty, full, noise of any density, rectangles, complements of rectangles."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.sampled_from([(HEIGHT, WIDTH), (1, 1), (1, 90), (90, 1), (7, 5)]))
    found = []
    for kind in draw(st.lists(st.sampled_from(['empty', 'full', 'noise', 'box', 'hole']), min_size=min_size, max_size=max_size)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        box = np.zeros((height, width), dtype=bool)
        box[top:top + rng.integers(1, height + 1), left:left + rng.integers(1, width + 1)] = True
        noise = rng.random((height, width)) < rng.random()
        found.append(dict(empty=box & False, full=box | True, noise=noise, box=box, hole=~box)[kind])
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks(), st.sampled_from([1, 30, 1 << 17]), st.booleans())
def test_areas_match_pixel_counts_for_any_chunk(drawn, chunk, text):
    codes = [encode(mask) for mask in drawn]
    if text:
        codes = [code | {'counts': code['counts'].decode()} for code in codes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, 'CHUNK', chunk)
        patch.setattr(rle, 'COMPILED_CHUNK', chunk)
        areas = rle_areas(codes)
    assert areas.tolist() == [int(mask.sum()) for mask in drawn] == [int(mask_api.area(encode(mask))) for mask in drawn]


def test_many_codes_and_long_runs():
    wide = np.zeros((3000, 2000), dtype=bool)
    wide[:, 700] = wide[17, 3] = True
    assert rle_areas([encode(wide)] * 300).tolist() == [3001] * 300


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks(), masks(), st.data())
def test_pairwise_iou_matches_pycocotools(drawn, others, data):
    targets = [mask for mask in others if drawn and mask.shape == drawn[0].shape]
    cells = sorted(data.draw(st.lists(st.integers(0, 3), min_size=len(drawn), max_size=len(drawn))))
    target_cells = sorted(data.draw(st.lists(st.integers(0, 3), min_size=len(targets), max_size=len(targets))))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(targets), max_size=len(targets)))
    min_iou = data.draw(st.sampled_from([.5, .75, .01, 1 - 1e-10]))
    codes, target_codes = [encode(mask) for mask in drawn], [encode(mask) for mask in targets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_pairs, 'COMPILED_CHUNK', data.draw(st.sampled_from([1, 40, 1 << 22])))
        pairs = rle_pairs(torch.tensor(cells, dtype=torch.int64), codes, torch.tensor(target_cells, dtype=torch.int64),
                          target_codes.__getitem__, torch.tensor(crowd, dtype=torch.bool), min_iou)
    expected = []
    for detection, cell in enumerate(cells):
        for target, target_cell in enumerate(target_cells):
            iou = mask_api.iou([codes[detection]], [target_codes[target]], [int(crowd[target])]).item()
            if cell == target_cell and iou >= min_iou:
                expected.append((detection, target, iou))
    assert list(zip(*(column.tolist() for column in pairs), strict=True)) == expected


def broken(code):
    """Return invalid variants of a code by name."""
    return {'cut off': code[:-1], 'cut within a length': code + b'P', 'empty': b'', 'one run more': code + b'5',
            'other characters': b'~' + code[1:], 'a line break': code + b'\n', 'a length of eight characters': b'P' * 7 + code}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks(min_size=1), st.data())
def test_invalid_codes(drawn, data):
    codes = [encode(mask) for mask in drawn]
    number = data.draw(st.integers(0, len(codes) - 1))
    ways = broken(codes[number]['counts'])
    way = data.draw(st.sampled_from(sorted(ways)))
    codes[number] = codes[number] | {'counts': ways[way]}
    with pytest.raises(ValueError, match=f'^mask {number}: its run-length code is broken or truncated: .* {drawn[0].shape[0]} x'):
        rle_areas(codes)


def lengths_as_code(lengths):
    """Encode run lengths of any sign like maskApi.c's rleToString."""
    code = b''
    for number, length in enumerate(lengths):
        rest = length - (lengths[number - 2] if number > 2 else 0)
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            code += bytes([bits + 48 + 32 * more])
    return code


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(-3, 12), min_size=2, max_size=9).filter(lambda runs: sum(runs) > 0), min_size=1, max_size=9),
       st.sampled_from([1, 5, 1 << 17]))
def test_run_lengths_stay_in_range(drawn, chunk):
    codes = [{'size': [1, sum(runs)], 'counts': lengths_as_code(runs)} for runs in drawn]
    bad = [number for number, runs in enumerate(drawn) if min(runs) < 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, 'CHUNK', chunk)
        patch.setattr(rle, 'COMPILED_CHUNK', chunk)
        if bad:
            with pytest.raises(ValueError, match=f'^mask {bad[0]}: its run-length code is broken'):
                rle_areas(codes)
        else:
            assert rle_areas(codes).tolist() == [sum(runs[1::2]) for runs in drawn]


@pytest.mark.parametrize('runs', [[1000, 500, 800, -300, 0], [2000, -5, 5], [-5, 2005], [0, 1, 1 << 34, 1999 - (1 << 34)]])
def test_negative_lengths_that_cancel_out(runs):
    good = encode(np.eye(40, 50))
    assert good['counts'] == lengths_as_code(runs_of(np.eye(40, 50)))
    with pytest.raises(ValueError, match='^mask 1: its run-length code is broken or truncated: .* 40 x 50'):
        rle_areas([good, {'size': [40, 50], 'counts': lengths_as_code(runs)}, good])


def runs_of(mask):
    """Return the run lengths in column-major order, background first."""
    flat = np.concatenate([[0], mask.ravel(order='F'), [2]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()


@pytest.mark.parametrize('counts', ['né', '\udc80', [0, 7, 500], [5], [0, -7, 607]])
def test_invalid_code_error_names_entry(counts):
    size = [20, 30]
    image = dict(images=[dict(id=9, height=20, width=30)], categories=[dict(id=8, name='b')])
    truth = read_ground_truth(image | {'annotations': []})
    good = dict(image_id=9, category_id=8, score=.5, segmentation={'size': size, 'counts': [0, 7, 593]})
    assert rle_areas([to_rle(good['segmentation'], *size, '')]).tolist() == [7]
    with pytest.raises(ValueError, match=r'^results\[1\]: its (run-length code|segmentation)'):
        make_detections([good, good | {'segmentation': {'size': size, 'counts': counts}}], truth, 'segm')

    annotations = [dict(id=number, image_id=9, category_id=8, bbox=[0, 0, 1, 7], area=7, iscrowd=0,
                        segmentation={'size': size, 'counts': given}) for number, given in ((4, [0, 7, 593]), (6, counts))]
    truth = read_ground_truth(image | {'annotations': annotations})
    truth.check_masks(np.array([0]))
    with pytest.raises(ValueError, match='^annotations: annotation 6: its (run-length code|segmentation)'):
        truth.check_masks(np.array([0, 1]))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e9, -1e300, 10**400])
@pytest.mark.parametrize('place', [0, 5])
def test_coordinates_that_no_image_has(value, place):
    polygon = [10, 10, 20, 10, 20, 20, 10, 20]
    polygon[place] = value
    with pytest.raises(ValueError, match='annotation 1: .* has the polygon .* image of 70 x 60 pixels') as error:
        to_rle([[1, 1, 5, 1, 5, 5], polygon], HEIGHT, WIDTH, 'annotation 1')
    assert '\n' not in str(error.value)


def test_coordinates_beyond_the_border_are_clipped_as_pycocotools_does():
    polygon = [[-500, 10, 700, 10, 700, 20, -500, 20]]
    mask = mask_api.decode(to_rle(polygon, HEIGHT, WIDTH, 'here'))
    assert mask.sum() == 10 * WIDTH
