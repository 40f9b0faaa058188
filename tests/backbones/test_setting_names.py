"""A misspelt setting of a sister family: Python's error, with the name of the class that was built."""

import pytest
from mmengine.registry import MODELS

import mmtied.backbones as backbones


@pytest.mark.parametrize(('family', 'wrong', 'meant'), [
    ('SharedResNet', 'shared_elments', 'shared_elements'),
    ('SharedResNetCIFAR', 'shared_elments', 'shared_elements'),
    ('SharedResNetCIFAR', 'frozen_stage', 'frozen_stages'),
    ('GResNeXt', 'bas_width', 'base_width'),
    ('IGCNet', 'conv_cg', 'conv_cfg'),
    ('IGCNetCIFAR', 'shortcut_group', 'shortcut_groups'),
])
def test_a_misspelt_setting(family, wrong, meant):
    with pytest.raises(TypeError, match=rf"^{family} got an unexpected keyword argument '{wrong}'; did you mean {meant}\?$"):
        getattr(backbones, family)(**{wrong: 3})


def test_in_a_config():
    with pytest.raises(TypeError, match="GResNeXt got an unexpected keyword argument 'dcn'$"):
        MODELS.build({'type': 'mmtied.GResNeXt', 'dcn': None})
