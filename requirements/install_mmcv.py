"""Install mmcv with its compiled operators into the environment of the running Python: ``install_mmcv.py [FOLDER]``.

FOLDER, by default ``requirements/onedl``, holds the pinned release in ``mmcv.txt``, of onedl or of OpenMMLab, and
``constraints.txt``. A prebuilt wheel is used if the folder $MMCV_WHEELS has one that fits; otherwise mmcv is compiled. pip alone
is not enough: with build isolation it silently installs mmcv without operators, and its cache would reuse a wheel that was
compiled for another torch or without CUDA.
The sources stay in the environment until the wheel is complete, so an interrupted compilation resumes.

Nearly all of a compilation goes into parsing torch's headers again for each of 77 files. With GCC, ``precompiled_header.py``
stands in for the compiler and parses them once.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = HERE / 'precompiled_header.py'
ENVIRONMENT = Path(sys.prefix)
WHEELS = ENVIRONMENT / 'wheels'
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
PROGRESS = re.compile(r'^\s*\[(\d+)/(\d+)\]')
SECONDS_BETWEEN_LINES = 15

CHECK = """
import torch
from mmcv.ops import get_compiling_cuda_version, nms, roi_align
cuda = get_compiling_cuda_version()
compiled = 'CPU' if cuda == 'not available' else f'CPU and CUDA {cuda}'
device = 'cuda' if cuda != 'not available' and torch.cuda.is_available() else 'cpu'
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]], device=device)
kept = nms(boxes, torch.tensor([.9, .8, .7], device=device), .5)[1].tolist()
if kept != [0, 2]:
    raise SystemExit(f'nms kept boxes {kept} instead of [0, 2]')
print(compiled)
"""


def main(folder: Path) -> None:
    """Install the mmcv that `folder` pins and check that its operators run."""
    requirement = read_requirement(folder / 'mmcv.txt')
    constraints = folder / 'constraints.txt'
    cuda_home, reason = find_cuda()
    kind = 'CPU and CUDA' if cuda_home else 'CPU'
    use_headless_opencv_where_needed(constraints)
    compiled, _ = run_operators(requirement)
    if compiled and compiled.startswith(kind):
        say(f'{requirement} is installed already and its operators run ({compiled})')
        return
    if not take_wheel(requirement, os.environ.get('MMCV_WHEELS')):
        say(f'operators for {kind}: {reason}')
        compile_wheel(requirement, cuda_home)
    pip('install', '--no-deps', '--force-reinstall', '--no-index', '--find-links', str(WHEELS), requirement)
    pip('install', '--constraint', str(constraints), requirement)
    use_headless_opencv_where_needed(constraints)
    compiled, problem = run_operators(requirement)
    if not compiled:
        fail(f'{requirement} is installed, but its operators do not run: {problem}')
    shutil.rmtree(ENVIRONMENT / 'mmcv-build', ignore_errors=True)
    say(f'{requirement}: operators run ({compiled})')


def read_requirement(path: Path) -> str:
    """Return the single requirement of a requirements file, for example ``'onedl-mmcv==2.3.6'``."""
    return next(line for line in path.read_text(encoding='utf-8').splitlines() if line and not line.startswith('#'))


def find_cuda() -> tuple[Path | None, str]:
    """Return the CUDA toolkit to compile with, or None, and the reason."""
    import torch

    if torch.version.cuda is None or not (torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1'):
        return None, 'torch sees no GPU (FORCE_CUDA=1 compiles for CUDA anyway)'
    candidates = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH'), shutil.which('nvcc'), '/usr/local/cuda']
    homes = [Path(found).resolve().parents[1] if found.endswith('nvcc') else Path(found) for found in candidates if found]
    return choose_toolkit(homes, torch.version.cuda)


def choose_toolkit(homes: list[Path], cuda: str) -> tuple[Path | None, str]:
    """Return the first complete toolkit with the major version of `cuda`, which torch was built with, and the reason.

    A complete toolkit has both ``bin/nvcc`` and the headers; nvcc alone cannot compile the operators.
    """
    seen = []
    for home in homes:
        nvcc = home / 'bin' / 'nvcc'
        if not (nvcc.exists() and (home / 'include' / 'cuda_runtime.h').exists()):
            continue
        text = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
        release = re.search(r'release (\d+)\.(\d+)', text)
        version = '.'.join(release.groups()) if release else 'of an unknown version'
        if release and release[1] == cuda.split('.')[0]:
            return home, f'nvcc {version} in {home}'
        seen.append(f'nvcc in {home} is {version}')
    found = '; '.join(dict.fromkeys(seen)) or 'no CUDA toolkit with nvcc was found (CUDA_HOME, PATH)'
    return None, f'CUDA operators need nvcc {cuda.split(".")[0]}.x: {found}'


def take_wheel(requirement: str, folder: str | None) -> bool:
    """Copy a prebuilt wheel for this Python and machine into the environment; return False if there is none."""
    if not folder:
        return False
    source = Path(folder).resolve()
    if not source.is_dir():
        name = requirement.split('==')[0].replace('-', '_')
        fail(f'MMCV_WHEELS={folder} is not a folder ({source}): name one with {name}-*.whl, or unset it to compile')
    command = [*PIP, 'download', '--quiet', '--no-deps', '--no-index', '--only-binary=:all:', '--find-links', str(source),
               '--dest', str(WHEELS), requirement]
    if subprocess.run(command, capture_output=True).returncode:
        say(f'MMCV_WHEELS={folder} has no wheel of {requirement} for this Python and machine; compiling it')
        return False
    say(f'{requirement} from MMCV_WHEELS={folder}')
    return True


def compile_wheel(requirement: str, cuda_home: Path | None) -> None:
    """Compile a wheel into the environment, with CUDA operators if `cuda_home` is given."""
    import torch

    require_compiler()
    jobs = os.environ.get('MAX_JOBS') or str(os.cpu_count())
    say(f'compiling {requirement} with {jobs} jobs: 2 to 5 minutes on 2 cores' +
        (' for the CPU operators, several times that with the CUDA operators' if cuda_home else ''))
    say('you may interrupt it, the same command resumes; MMCV_WHEELS=folder uses a prebuilt wheel instead')
    settings = {**os.environ, 'MAX_JOBS': jobs, 'MMCV_WITH_OPS': '1', 'CFLAGS': f'{os.environ.get("CFLAGS", "")} -g0'.strip()}
    if cuda_home:
        settings['CUDA_HOME'] = str(cuda_home)
    else:
        settings.update(CUDA_VISIBLE_DEVICES='', FORCE_CUDA='0')
    work = ENVIRONMENT / 'mmcv-build' / f'{"cuda" if cuda_home else "cpu"}-torch-{torch.__version__}'
    sources = unpack_sources(requirement, work)
    if is_gcc():
        settings['CXX'] = str(write_compiler(work))
    log = ENVIRONMENT / 'mmcv-build.log'
    status = follow([*PIP, 'wheel', '-v', '--no-deps', '--no-build-isolation', '--no-cache-dir',
                     '--wheel-dir', str(WHEELS), str(sources)], settings, log)
    if status:
        print(''.join(log.read_text(encoding='utf-8').splitlines(keepends=True)[-30:]), file=sys.stderr)
        fail(f'{requirement} did not compile; the compiler output is in {log}')
    say(f'kept the wheel: environments with the same Python and torch can use it with MMCV_WHEELS={WHEELS}')


def unpack_sources(requirement: str, work: Path) -> Path:
    """Return the unpacked sources, downloaded once, so that ninja can resume an interrupted compilation."""
    whole = work / 'whole'
    if not whole.exists():
        shutil.rmtree(work, ignore_errors=True)
        pip('download', '--quiet', '--no-deps', '--no-build-isolation', '--no-binary=:all:', '--dest', str(work),
            requirement)
        shutil.unpack_archive(next(work.glob('*.tar.gz')), work)
        whole.touch()
    return next(path for path in work.iterdir() if path.is_dir())


def follow(command: list[str], settings: dict[str, str], log: Path) -> int:
    """Run a command that ends in ninja, log its output, print its progress, and return its exit status."""
    start = last = time.monotonic()
    with log.open('w', encoding='utf-8') as file, subprocess.Popen(
            command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace') as process:
        for line in process.stdout:
            file.write(line)
            done = PROGRESS.match(line)
            now = time.monotonic()
            if done and (now - last > SECONDS_BETWEEN_LINES or done[1] == done[2]):
                last = now
                say(f'{done[1]} of {done[2]} files compiled, {(now - start) / 60:.1f} min')
    return process.returncode


def is_gcc() -> bool:
    """Return whether the C++ compiler is GCC, on whose precompiled headers `precompiled_header.py` relies."""
    name = os.environ.get('CXX', 'g++')
    return 'Free Software Foundation' in subprocess.run([*name.split(), '--version'], capture_output=True, text=True).stdout


def write_compiler(folder: Path) -> Path:
    """Write an executable `g++` that runs `precompiled_header.py` and return its path.

    torch warns about compilers of another name, and distutils about names of several words.
    """
    path = folder / 'bin' / 'g++'
    path.parent.mkdir(exist_ok=True)
    compiler = os.environ.get('CXX', shutil.which('g++'))
    command = f'{shlex.quote(sys.executable)} {shlex.quote(str(COMPILER))} {compiler}'
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding='utf-8')
    path.chmod(0o755)
    return path


def require_compiler() -> None:
    """Exit with the command that installs a missing C++ compiler or Python's missing headers."""
    import sysconfig

    compiler = os.environ.get('CXX', 'g++').split()[0]
    if shutil.which(compiler) is None:
        fail(f'compiling mmcv needs a C++17 compiler, but there is no {compiler}: apt-get install g++, or set CXX')
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        version = f'{sys.version_info.major}.{sys.version_info.minor}'
        fail(f"compiling mmcv needs Python's headers: apt-get install python{version}-dev")


def use_headless_opencv_where_needed(constraints: Path) -> None:
    """Replace OpenCV's desktop build by the headless one if it cannot load (no libGL)."""
    import_cv2 = subprocess.run([sys.executable, '-c', 'import cv2'], capture_output=True, text=True)
    missing = re.search(r'ImportError: \S*?(lib[^/\s]+\.so\S*):', import_cv2.stderr)
    if missing is None:
        return
    say(f'OpenCV cannot load {missing[1]} on this machine; installing its headless build instead')
    pins = constraints.read_text(encoding='utf-8').splitlines()
    headless = next(line for line in pins if line.startswith('opencv-python-headless=='))
    pip('install', '--no-deps', '--force-reinstall', headless)


def run_operators(requirement: str) -> tuple[str | None, str]:
    """Return what the operators were compiled for, or None if they do not run or have another version, and the error."""
    name, version = requirement.split('==')
    check = f'from importlib.metadata import version\nassert version({name!r}) == {version!r}\n' + CHECK
    run = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True)
    lines = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines() or ['no output']
    return (lines[-1] if run.returncode == 0 else None), lines[-1]


def pip(*arguments: str) -> None:
    """Run pip; exit if it fails."""
    if subprocess.run([*PIP, *arguments]).returncode:
        fail(f'pip {arguments[0]} failed, see above; the same command resumes here')


def say(text: str) -> None:
    """Print a progress line immediately."""
    print(f'    {text}', flush=True)


def fail(text: str) -> None:
    """Exit with one line on stderr."""
    sys.exit(f'error: {text}')


if __name__ == '__main__':
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / 'onedl')
    except KeyboardInterrupt:
        sys.exit('interrupted: the same command goes on from here')
