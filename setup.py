"""Build segroi and its two compiled parts.

``segroi/_ops.abi3.so`` holds the operators and knows PyTorch but not Python: one wheel serves every
version of Python that its torch has. ``segroi._C``, their plain Python functions, fits one version.

Environment:
    SEGROI_CUDA           auto (default: nvcc and a CUDA build of torch are there), 0 or 1
    TORCH_CUDA_ARCH_LIST  architectures, default "8.0;8.6;8.9;9.0;10.0+PTX" cut to what nvcc knows
    SEGROI_SANITIZE       for example "address,undefined": an instrumented build for the tests
    SEGROI_EXTENSION      0 builds the pure-Python package (slow reference operators)
    DEBUG                 1 keeps assertions and symbols
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent.resolve()
DEFAULT_ARCHS = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def warn(message: str) -> None:
    """Print a warning that survives pip's capturing when ``-v`` is given."""
    print(f"segroi: {message}", file=sys.stderr)


def find_cuda_root() -> Path | None:
    """The CUDA toolkit, asked of nvcc itself: the one on PATH may be a wrapper outside it."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        root = os.environ.get(variable)
        if root and (Path(root) / "bin" / "nvcc").exists():
            return Path(root)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        default = Path("/usr/local/cuda")
        return default if (default / "bin" / "nvcc").exists() else None
    dry = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
    )
    here = re.search(r"_HERE_=(.+)", dry.stderr + dry.stdout)
    return Path(here.group(1).strip()).parent if here else Path(nvcc).resolve().parent.parent


def cuda_wanted(root: Path | None) -> bool:
    """Whether to compile the CUDA kernels; a visible GPU plays no part."""
    choice = os.environ.get("SEGROI_CUDA", "auto").lower()
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"segroi: SEGROI_CUDA must be auto, 0 or 1, got {choice!r}")
    if choice == "0":
        return False
    import torch

    if root is not None and torch.version.cuda is not None:
        return True
    if choice == "1":
        raise SystemExit(
            "segroi: SEGROI_CUDA=1 needs nvcc (found: "
            f"{root or 'none'}; set CUDA_HOME) and a CUDA build of torch (found: torch "
            f"{torch.__version__}, CUDA {torch.version.cuda})"
        )
    return False


def known_archs(root: Path) -> str:
    """The default architectures that this nvcc knows, the newest also as PTX."""
    listing = subprocess.run(
        [str(root / "bin" / "nvcc"), "--list-gpu-arch"], capture_output=True, text=True, check=True
    ).stdout
    known = [a for a in DEFAULT_ARCHS if f"compute_{a.replace('.', '')}" in listing.split()]
    return ";".join(known) + "+PTX"


def extensions() -> list:
    """The compiled parts, or nothing where they cannot be built."""
    if os.environ.get("SEGROI_EXTENSION", "1") == "0":
        return []
    try:
        import torch  # noqa: F401
    except ImportError:
        warn(
            "torch is not importable in this build environment, so the operators are not compiled "
            "(pip install --no-build-isolation compiles them against your torch)"
        )
        return []
    if shutil.which(os.environ.get("CXX", "c++").split()[-1]) is None:
        warn("no C++ compiler found, so the operators are not compiled: install g++ or set CXX")
        return []
    root = find_cuda_root()
    use_cuda = cuda_wanted(root)
    if root is not None:
        os.environ["CUDA_HOME"] = str(root)  # before cpp_extension is imported and guesses
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    debug = os.environ.get("DEBUG", "0") == "1"
    sanitize = os.environ.get("SEGROI_SANITIZE", "")
    # -ffp-contract=off: a coordinate contracted to an FMA is off by up to 1e-4 of a cell
    cxx = ["-O0" if debug else "-O3", "-g" if debug else "-g0", "-fopenmp", "-ffp-contract=off"]
    cxx += ["-Wall", "-Wno-sign-compare", "-Wno-unknown-pragmas", "-fvisibility=hidden"]
    cxx += ["-UNDEBUG"] if debug else ["-DNDEBUG"]
    link = ["-fopenmp"]
    if sanitize:
        flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1", "-g1"]
        cxx += [*flags, f'-DSEGROI_SANITIZERS="{sanitize}"']
        link += flags
    sources = ["csrc/ops.cpp", *sorted_glob("csrc/autograd/*.cpp"), *sorted_glob("csrc/cpu/*.cpp")]
    compile_args = {"cxx": cxx}
    if use_cuda:
        archs = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", known_archs(root))
        cxx += [f'-DSEGROI_CUDA_ARCHS="{archs}"', f'-DSEGROI_CUDA_VERSION="{cuda_version(root)}"']
        sources += [*sorted_glob("csrc/cuda/*.cpp"), *sorted_glob("csrc/cuda/*.cu")]
        compile_args["nvcc"] = ["-O3", "--expt-relaxed-constexpr", "-lineinfo", "-DNDEBUG"]
    else:
        sources.append("csrc/cpu_only.cpp")
    kind = CUDAExtension if use_cuda else CppExtension
    options = {"include_dirs": [str(ROOT / "csrc")], "extra_link_args": link}
    return [
        kind(
            "segroi._ops",
            sources,
            extra_compile_args=compile_args,
            py_limited_api=True,
            **options,
        ),
        CppExtension(
            "segroi._C", ["csrc/bindings.cpp"], extra_compile_args={"cxx": cxx}, **options
        ),
    ]


def cuda_version(root: Path) -> str:
    """Release of the toolkit at ``root``, for example "13.0"."""
    out = subprocess.run(
        [str(root / "bin" / "nvcc"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"release (\d+\.\d+)", out)
    return found.group(1) if found else "unknown"


def sorted_glob(pattern: str) -> list[str]:
    """Paths relative to the root, as setuptools wants them."""
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(pattern))


def command_class() -> dict:
    """torch's build_ext, with an error that says what to set when nvcc fails."""
    try:
        from torch.utils.cpp_extension import BuildExtension
    except ImportError:
        return {}

    class BuildSegroi(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if not any(s.endswith(".cu") for e in self.extensions for s in e.sources):
                    raise
                raise RuntimeError(
                    "segroi: the build with CUDA kernels failed (see above). SEGROI_CUDA=0 builds "
                    "for the CPU only; CUDA_HOME chooses another toolkit; TORCH_CUDA_ARCH_LIST the "
                    "architectures."
                ) from error

    return {"build_ext": BuildSegroi}


modules = extensions()
setup(
    ext_modules=modules,
    cmdclass=command_class() if modules else {},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if modules else {},
)
