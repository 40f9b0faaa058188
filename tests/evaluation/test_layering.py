"""Import directions: no cycles, no reporting below the results, OpenMMLab only in metric and hook."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import mmtied

ROOT = Path(mmtied.__file__).parent
MODULES = {'.'.join(('mmtied', *path.relative_to(ROOT).with_suffix('').parts)).removesuffix('.__init__'): path
           for path in ROOT.rglob('*.py')}


def is_type_checking(node):
    return isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'


def imports(name, everywhere=False):
    """Return the mmtied modules that a module imports at load time, or anywhere."""
    path = MODULES[name]
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    tree = ast.parse(path.read_text())
    waiting, found = [tree], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *([node.module] if node.module else [])])
            found |= {f'{source}.{alias.name}' if f'{source}.{alias.name}' in MODULES else source for alias in node.names}
        elif not is_type_checking(node) and (everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return found & set(MODULES)


def test_no_import_cycles():
    graph = {name: imports(name) for name in MODULES}
    done = set()

    def visit(name, above):
        assert name not in above, ' -> '.join([*above[above.index(name):], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*above, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


def test_arithmetic_does_not_import_reporting():
    plugs = {'metric', 'hook'}
    lazy = {'result'}  # plots and files are imported on demand
    for name in MODULES:
        package, _, module = name.rpartition('.')
        if package == 'mmtied.evaluation' and module not in {'inputs', 'reporting', *plugs}:
            reporting = {other for other in imports(name, everywhere=module not in lazy) if '.reporting' in other}
            assert not reporting, (name, reporting)
        if name.startswith('mmtied.evaluation.inputs'):
            others = {other for other in imports(name, everywhere=True)  # the protocol's names are plain constants
                      if other.startswith('mmtied.evaluation') and '.inputs' not in other and not other.endswith('.protocol')}
            assert not others, (name, others)


def test_statistics_and_ratios_import_without_torch():
    code = 'import sys; from mmtied.evaluation import OCCLUSION_RATIOS, STATISTICS; print("torch" in sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                            env={**os.environ, 'MMTIED_REGISTER': '0'})
    assert result.stdout.strip() == 'False'


#: Modules that plug into mmengine; everything else works without it.
PLUGS = ['mmtied.evaluation.hook', 'mmtied.evaluation.metric']

IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.modules['torchmetrics'] = None  # not needed either, and loads matplotlib
import {package} as package
missing = []
for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        missing.append(found.name)
print(json.dumps([missing, sorted(sys.modules)]))
"""


def test_only_metric_and_hook_need_openmmlab(run_without_openmmlab):
    missing, loaded = json.loads(run_without_openmmlab(IMPORT_ALL.format(package='mmtied.evaluation')))
    assert missing == PLUGS
    assert not {'matplotlib', 'jinja2', 'rich'} & set(loaded)


def test_inputs_import_only_inputs_and_the_protocol(run_without_openmmlab):
    missing, loaded = json.loads(run_without_openmmlab(IMPORT_ALL.format(package='mmtied.evaluation.inputs')))
    assert missing == []
    others = [name for name in loaded if name.startswith('mmtied.evaluation.') and '.inputs' not in name]
    assert others == ['mmtied.evaluation.protocol']
