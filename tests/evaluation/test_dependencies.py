"""Which way the imports point."""

import json

#: Modules that plug into mmengine; everything else has to work without it.
PLUGS = ['mmtied.evaluation.hook', 'mmtied.evaluation.metric']

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import {package} as package
missing = []
for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        missing.append(found.name)
print(json.dumps([missing, sorted(sys.modules)]))
"""


def test_only_metric_and_hook_need_openmmlab_and_no_import_costs_a_plotting_library(run_without_openmmlab):
    missing, loaded = json.loads(run_without_openmmlab(IMPORT_ALL.format(package='mmtied.evaluation')))
    assert missing == PLUGS
    assert not {'matplotlib', 'jinja2', 'rich'} & set(loaded)


def test_inputs_need_nothing_else_of_the_evaluation(run_without_openmmlab):
    missing, loaded = json.loads(run_without_openmmlab(IMPORT_ALL.format(package='mmtied.evaluation.inputs')))
    assert missing == []
    others = [name for name in loaded if name.startswith('mmtied.evaluation.') and '.inputs' not in name]
    assert others == []
