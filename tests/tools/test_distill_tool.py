"""Run tools/distill.py on a few images, and start a detector from its output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from PIL import Image

from mmtied.launch.checkpoints import build_model, check_backbone, use_backbone_checkpoint
from mmtied.launch.config import load_config
from mmtied.launch.distill import distillation_config, parse_stages
from mmtied.training.alone import BackboneAlone, ImagesAlone
from tests.helpers.tools import run_in_process

TEACHER = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(base_channels=8, stem_channels=8, init_cfg=None))
'''
STUDENT = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(base_channels=4, stem_channels=4, conv_cfg=dict(type='TBC', indivisible='untie'), init_cfg=None),
             neck=dict(in_channels=[4, 8, 16, 32]))
'''


@pytest.fixture
def files(tmp_path) -> Path:
    """Make a teacher with a checkpoint, a student, and a folder with images at two depths, one of them broken."""
    pytest.importorskip('mmdet')
    (tmp_path / 'teacher.py').write_text(TEACHER)
    (tmp_path / 'student.py').write_text(STUDENT)
    network = MODELS.build({'type': 'mmdet.ResNet', 'depth': 18, 'base_channels': 8, 'stem_channels': 8})
    torch.save(network.state_dict(), tmp_path / 'teacher.pth')
    (tmp_path / 'images/below').mkdir(parents=True)
    for index, name in enumerate(['a.png', 'b.jpg', 'below/c.PNG']):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'images' / name)
    (tmp_path / 'images/broken.png').write_bytes(b'no image')
    (tmp_path / 'images/notes.txt').write_text('no image')
    return tmp_path


@pytest.fixture
def run(files, monkeypatch, capfd):
    def run(*arguments, teacher='teacher.py'):
        monkeypatch.chdir(files)
        MMLogger._instance_dict.clear()
        given = {'--images': 'images', '--weights': 'teacher.pth', '--work-dir': 'work', '--size': 32, '--batch-size': 2,
                 '--workers': 0, '--save-every': 2, **dict(zip(arguments[::2], arguments[1::2], strict=True))}
        words = [word for name, value in given.items() for word in (name, value) if word is not None and given[name] != 'none']
        return run_in_process('distill.py', (teacher, 'student.py', *words), monkeypatch, capfd)

    return run


@pytest.mark.filterwarnings('ignore')
def test_trains_resumes_and_writes_weights_for_a_detector(run, files):
    code, out, err = run('--iters', 2)
    assert code == 0, err
    assert out.splitlines()[-1] == 'work/backbone.pth: weights for mmtied train CONFIG --backbone-checkpoint work/backbone.pth'
    assert 'layer4 (32 channels) -> layer4 (64)' in out
    first = torch.load(files / 'work/backbone.pth', weights_only=True)['state_dict']
    cfg = load_config('student.py')
    use_backbone_checkpoint(cfg, 'work/backbone.pth')
    model = build_model(cfg)
    check_backbone(model, 'work/backbone.pth')
    model.backbone.init_weights()
    torch.testing.assert_close(dict(model.backbone.state_dict()), dict(first), rtol=0, atol=0)

    code, out, err = run('--iters', 4, '--resume', None, '--out', 'second.pth')
    assert code == 0, err
    assert 'resumed epoch: 0, iter: 2' in out
    assert not torch.equal(torch.load('second.pth', weights_only=True)['state_dict']['conv1.weight'], first['conv1.weight'])
    assert sorted(path.name for path in (files / 'work').glob('*.pth')) == ['backbone.pth', 'iter_4.pth']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--images', 'missing'], 'images: missing is not a folder'),
    (['--images', 'work.d'], 'images: neither work.d nor its subfolders have images (.jpg'),
    (['--iters', 0], '--iters 0: expected at least 1'),
    (['--seed', -1], '--seed -1: expected at least 0'),
    (['--stages', 'layer3='], '--stages layer3=: expected NAME or STUDENT=TEACHER for each'),
    (['--lr', -1], '--lr -1.0: expected a positive number'),
    (['--stages', 'layer5'], "the teacher ResNet has no stage 'layer5'; did you mean layer4?"),
    (['--weights', 'missing.pth'], "the teacher's weights missing.pth: no such file"),
    (['--weights', 'student.py'], "the teacher's weights student.py: not a readable checkpoint"),
    (['--weights', 'none'], 'DistillationHook: teacher: ResNet would have random weights; name its checkpoint with weights=FILE'),
    (['--out', 'images'], '--out images: expected a file, got a folder'),
])
@pytest.mark.filterwarnings('ignore')
def test_mistakes_are_one_line(run, files, arguments, message):
    (files / 'work.d').mkdir()
    code, _, err = run(*arguments)
    assert code == 2
    assert err.count('error: ') == 1
    assert message in err
    assert not (files / 'work/backbone.pth').exists()


def test_a_bare_name_gets_the_full_one(run):
    code, _, err = run(teacher='resnet50')
    assert code == 2
    assert 'teacher: resnet50 is not a config; for a torchvision network use torchvision://resnet50' in err


def test_images(files, capsys):
    images = ImagesAlone(files / 'images', 16, scale=(1., 1.))
    assert [Path(path).name for path in images.paths] == ['a.png', 'b.jpg', 'c.PNG', 'broken.png']
    assert all(images[index]['inputs'].shape == (3, 16, 16) for index in range(4))
    assert 'broken.png: cannot be read as an image' in capsys.readouterr().err
    Image.fromarray(np.full((20, 20, 3), (10, 20, 30), dtype=np.uint8)).save(files / 'images/a.png')
    assert ImagesAlone(files / 'images', 16)[0]['inputs'].unique_consecutive().tolist() == [30, 20, 10]  # BGR, as mmcv's


def test_an_all_broken_folder_raises(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'a.png and those after it cannot be read'):
        ImagesAlone(tmp_path)[0]


def test_no_stage_is_frozen_and_images_are_normalized_as_in_the_students_config(files):
    cfg = load_config(str(files / 'student.py'))
    assert (cfg.model.backbone.frozen_stages, cfg.model.backbone.norm_eval) == (1, True)
    made = distillation_config(cfg, {'teacher': 'x'}, 'images', iters=5).model
    assert (made.backbone.frozen_stages, made.backbone.norm_eval) == (-1, False)
    model = BackboneAlone({'type': 'mmdet.ResNet', 'depth': 18}, made.data_preprocessor)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    expected = build_model(cfg).data_preprocessor({'inputs': [image], 'data_samples': None})['inputs']
    torch.testing.assert_close(model.data_preprocessor({'inputs': [image]})['inputs'], expected)


def test_stages():
    assert parse_stages(['layer3', 'layer4=stages.3']) == {'layer3': 'layer3', 'layer4': 'stages.3'}
