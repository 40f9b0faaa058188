"""Build and installation of mmtied; the tools' settings are in pyproject.toml."""

from __future__ import annotations  # so that old Pythons get as far as pip's own message

import os
import platform
import re
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Files that OpenMMLab's `mim` and mmengine look for in a package's folder `.mim`.
MIM = ('configs', 'tools', 'model-index.yml')
#: Web address of the repository, for a release's package page; without it the page has no links into the repository.
REPOSITORY = os.environ.get('MMTIED_REPOSITORY', '').rstrip('/')
#: Ranges that resolve on Python 3.10 to 3.12. The exact releases that the tests run with are in requirements/.
EXTRAS = {
    'onedl': ['torch<2.14', 'onedl-mmcv>=2.3.6', 'onedl-mmengine>=0.10.12', 'onedl-mmdetection>=3.5.1',
              'onedl-mmpretrain>=1.3.6'],
    'openmmlab': ['mmengine>=0.10.7', 'mmcv>=2.1,<2.2', 'mmdet>=3.3', 'mmpretrain>=1.2', 'numpy<2', 'setuptools<82'],
    'report': ['matplotlib>=3.7', 'jinja2>=3.1', 'pillow>=9.4'],
    'shapes': ['opencv-python-headless>=4.6', 'rich>=13'],
    'onnx': ['onnx>=1.16', 'onnxruntime>=1.18', 'onnxscript>=0.2'],
    'cam': ['grad-cam>=1.5.4', 'matplotlib>=3.7', 'pillow>=9.4'],
    'test': ['pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6.100', 'hotcoco>=0.1', 'pandas>=2', 'torchmetrics>=1.4',
             'onnx>=1.16', 'onnxruntime>=1.18', 'onnxscript>=0.2', 'ruff>=0.14',
             'grad-cam>=1.5.4'],
    'docs': ['sphinx>=7', 'myst-parser>=3', 'furo>=2024.1'],
    'benchmark': ['faster-coco-eval>=1.6', 'hotcoco>=0.1', 'ultrafast-pycocotools'],
}


class BuildWithMim(build_py):
    """Add configs, tools and the model index to the package: copied into a wheel, linked for an editable installation."""

    def run(self) -> None:
        """Build, then add ``mmtied/.mim``."""
        super().run()
        linked = getattr(self, 'editable_mode', False)
        target = (ROOT if linked else Path(self.build_lib)) / 'mmtied' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM:
            if not (linked and link(ROOT / name, target / name)):
                copy(ROOT / name, target / name)


def link(source: Path, target: Path) -> bool:
    """Make a relative symbolic link; return False where the system does not allow it (Windows without developer mode)."""
    try:
        target.symlink_to(os.path.relpath(source, target.parent), target_is_directory=source.is_dir())
    except OSError:
        return False
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'))
    else:
        shutil.copy2(source, target)


def extensions() -> list[Extension]:
    """Return the optional C++ library; the package works without it where it does not compile."""
    if platform.system() == 'Windows':
        return []
    return [Extension('mmtied.native._run_lengths', ['mmtied/native/run_lengths.cpp'],
                      extra_compile_args=['-O3', '-std=c++17', '-fopenmp'], extra_link_args=['-fopenmp'], optional=True)]


def read(path: str) -> str:
    """Return the text of a file in the repository, or nothing if there is none."""
    return (ROOT / path).read_text(encoding='utf-8') if (ROOT / path).exists() else ''


def package_page(markdown: str, repository: str) -> str:
    """Return the README with its relative links and pictures made absolute, or left out where no address is known."""
    def picture(found: re.Match) -> str:
        return f'![{found[1]}]({repository}/raw/main/{found[2]})' if repository else ''

    def anchor(found: re.Match) -> str:
        return f'[{found[1]}]({repository}/blob/main/{found[2]})' if repository else found[1]

    relative = r'\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)'
    return re.sub(r'(?<!!)' + relative, anchor, re.sub('!' + relative, picture, markdown))


setup(
    name='mmtied',
    version=re.search(r"__version__ = '(.+)'", read('mmtied/version.py'))[1],
    description='Tied block convolution backbones for MMDetection, and COCO evaluation by occlusion',
    long_description=package_page(read('README.md'), REPOSITORY),
    long_description_content_type='text/markdown',
    url=REPOSITORY or None,
    project_urls={'Documentation': f'{REPOSITORY}/tree/main/docs', 'Changes': f'{REPOSITORY}/blob/main/CHANGELOG.md',
                  'Issues': f'{REPOSITORY}/issues'} if REPOSITORY else {},
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['object detection', 'instance segmentation', 'mmdetection', 'convolution', 'occlusion', 'COCO'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmtied', 'mmtied.*']),
    package_data={'mmtied.analysis': ['papers/*.yml'], 'mmtied.evaluation.reporting': ['*.jinja']},
    entry_points={'console_scripts': ['mmtied = mmtied.__main__:main']},
    cmdclass={'build_py': BuildWithMim},
    ext_modules=extensions(),
    zip_safe=False,
    python_requires='>=3.10',
    # Both OpenMMLab families install under the same import names, so neither may be required: each is an extra.
    # orjson reads results files 3 times as fast; without it the standard library's json reads the same.
    install_requires=['torch>=2.1', 'numpy', 'pycocotools', 'orjson'],
    extras_require=EXTRAS,
)
