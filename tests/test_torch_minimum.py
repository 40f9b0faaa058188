"""Outside `mmtied.torch_compat`, the package uses no name that torch 2.1, the oldest supported release, lacks."""

import ast
import subprocess
import sys

import torch

from tests.helpers.torch_names import LIST, exists, names_in, used_names

SUPPORTED = set(LIST.read_text(encoding='utf-8').split())


def test_names_exist_in_the_oldest_torch():
    newer = [f'{path}: {name}' for name, path in used_names().items() if name not in SUPPORTED]
    assert newer == [], 'not seen in torch 2.1 (tests/helpers/torch_names.py says how to check and list them)'


def test_used_names_exist_in_the_running_torch():
    assert [name for name in used_names() if not exists(name)] == []


def test_newer_names_are_found():
    source = '''
import torch
import torch.nn.functional as F
from torch import nn
from torch.compiler import is_exporting as exporting
torch.compiler.is_compiling()
F.scaled_dot_product_attention
nn.RMSNorm(4)
model.set_submodule('a', b)
'''
    newer = {'torch.compiler.is_exporting', 'torch.compiler.is_compiling', 'torch.nn.RMSNorm'}
    if hasattr(torch.nn.Module, 'set_submodule'):  # methods are recognized through the running torch
        newer.add('torch.nn.Module.set_submodule')
    found = set(names_in(ast.parse(source)))
    assert found >= newer | {'torch.nn.functional.scaled_dot_product_attention'}
    assert SUPPORTED.isdisjoint(newer)


def test_import_without_functions_that_the_oldest_torch_lacks():
    """`names_in` does not find names in strings; torch 2.1 has this one only in ``torch.nn.utils.fusion``."""
    code = 'from torch.nn import utils; vars(utils).pop("fuse_linear_bn_eval", None); import mmtied.layers'
    subprocess.run([sys.executable, '-c', code], check=True)
