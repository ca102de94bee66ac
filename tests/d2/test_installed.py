"""What `import segroi.d2` does with and without Detectron2."""

import subprocess
import sys

import pytest

WITHOUT = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "detectron2" else find_spec(name, *a)
import segroi.d2
"""


def test_detectron2_is_installed():
    pytest.importorskip("detectron2", reason="Detectron2 is not installed: tests/d2 is left out")
    import segroi.d2

    assert segroi.d2.SegroiPooler


def test_import_error_tells_how_to_install_detectron2():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: segroi.d2 needs Detectron2: ")
    assert "pip install" in last and "facebookresearch/detectron2" in last
