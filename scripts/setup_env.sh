# Sourced by demo.sh and test.sh: leaves `python` pointing at an environment that holds segroi and what
# it needs. An active virtual or conda environment is used as it is; else `.venv` is made, which sees
# the system's packages, so that an installed torch, torchvision and Detectron2 serve.
#
#   source scripts/setup_env.sh EXTRAS CUDA
#     EXTRAS  comma list of pyproject.toml's optional dependencies, e.g. "demo" or "test,dev"
#     CUDA    value for SEGROI_CUDA where the user has set none: auto, 0 or 1

cd "$(dirname "${BASH_SOURCE[0]}")/.."
segroi_extras=$1
export SEGROI_CUDA=${SEGROI_CUDA:-$2}

segroi_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python python3.13 python3.12 python3.11 python3.10; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
    echo "$candidate"
    return
  done
  echo "segroi: Python 3.10 or newer is needed (set PYTHON to choose one)" >&2
  return 1
}

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    segroi_base=$(segroi_python)
    echo "segroi: making .venv with $("$segroi_base" --version)"
    "$segroi_base" -m venv --system-site-packages .venv || {
      rm -rf .venv
      echo "segroi: python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2
      exit 1
    }
  fi
  source .venv/bin/activate
fi

segroi_pip() { python -m pip install --quiet --disable-pip-version-check "$@"; }

# torch and torchvision go in matched pairs: torch 2.N with torchvision 0.(N+15).
segroi_torch_pins() {
  python - <<'PY'
from importlib.metadata import PackageNotFoundError, version

def have(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None

torch, vision = have("torch"), have("torchvision")
if torch and not vision:
    minor = int(torch.split(".")[1]) + 15
    print(f"torch=={torch.split('+')[0]} torchvision==0.{minor}.*")
elif not torch:
    print("torch torchvision")
PY
}

# What the installation depends on; nothing is done again while it stays the same.
segroi_state() {
  {
    python -c 'import sys; print(sys.prefix, sys.version)'
    python -m pip list --format=freeze 2>/dev/null | grep -iE '^(torch|torchvision|numpy)=='
    echo "$segroi_extras $SEGROI_CUDA ${TORCH_CUDA_ARCH_LIST:-} ${SEGROI_SANITIZE:-} ${SEGROI_EXTENSION:-}"
    cat pyproject.toml setup.py
    find csrc -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
      sort -z | xargs -0 cat
  } | sha256sum | cut -d' ' -f1
}

segroi_stamp=build/.installed
if [ "$(cat "$segroi_stamp" 2>/dev/null)" != "$(segroi_state)" ]; then
  segroi_pins=$(segroi_torch_pins)
  if [ -n "$segroi_pins" ]; then
    echo "segroi: installing $segroi_pins (a few minutes)"
    segroi_pip $segroi_pins
  fi
  echo "segroi: installing the build tools"
  segroi_pip "setuptools>=77,<81" wheel ninja pybind11
  echo "segroi: compiling and installing segroi[$segroi_extras] (SEGROI_CUDA=$SEGROI_CUDA)"
  segroi_log=$(mktemp)
  if ! python -m pip install --disable-pip-version-check --no-build-isolation -v \
    -e ".[$segroi_extras]" >"$segroi_log" 2>&1; then
    tail -n 60 "$segroi_log" >&2
    echo "segroi: the installation failed; the whole log is in $segroi_log" >&2
    exit 1
  fi
  grep '^ *segroi: ' "$segroi_log" || true
  rm -f "$segroi_log"
  mkdir -p build
  segroi_state >"$segroi_stamp"
fi
