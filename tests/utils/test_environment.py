"""`segroi doctor`: every broken pairing gets a verdict and a way out."""

import json
from dataclasses import replace

import pytest

from segroi.cli import doctor
from segroi.utils.environment import (
    REQUIRED,
    Facts,
    collect,
    diagnose,
    matching_torchvision,
    runs_on,
)

SOUND = Facts(
    python="3.11.7",
    system="Linux x86_64",
    compiler="g++ 12",
    torch="2.14.1+cu130",
    torch_cuda="13.0",
    torchvision="0.29.1+cu130",
    extension={
        "built": True,
        "torch": "2.14.1",
        "compiler": "12",
        "cuda": "13.0",
        "cuda_archs": "9.0+PTX",
    },
    gpus=[("NVIDIA H200", "9.0")],
    gpu_driver=True,
    detectron2="0.6",
    packages=dict.fromkeys(REQUIRED, "1"),
)


def worst(facts):
    return [f for f in diagnose(facts) if f.level in ("warning", "error")]


def test_sound_installation_has_nothing_to_mend():
    assert worst(SOUND) == []


@pytest.mark.parametrize(
    ("change", "level", "says", "fix"),
    [
        (
            {"torch_error": "ModuleNotFoundError: No module named 'torch'"},
            "error",
            "torch",
            "install",
        ),
        (
            {
                "torchvision": "",
                "torchvision_error": "RuntimeError: operator torchvision::nms does not exist",
            },
            "error",
            "built for another torch than 2.14.1+cu130",
            "torchvision==0.29.*",
        ),
        ({"torchvision": "0.28.0"}, "error", "no pair", "torchvision==0.29.*"),
        ({"torchvision": "0.29.1+cpu"}, "warning", "different builds", "same index"),
        (
            {"extension_error": "_ops.abi3.so exists but does not load"},
            "error",
            "does not load",
            "pip",
        ),
        ({"extension": {"built": False, "why_not": "no compiler"}}, "warning", "slow", "install"),
        ({"extension": {**SOUND.extension, "torch": "2.11.0"}}, "error", "torch 2.11.0", "pip"),
        ({"extension": {**SOUND.extension, "cuda": "12.8"}}, "error", "CUDA 12.8", "CUDA_HOME"),
        ({"extension": {**SOUND.extension, "cuda": ""}}, "warning", "CPU only", "toolkit"),
        (
            {"gpus": [("RTX 3090", "8.6")]},
            "error",
            "no kernel for sm_86",
            "TORCH_CUDA_ARCH_LIST=8.6",
        ),
        ({"gpus": []}, "warning", "cannot use it", "driver"),
        (
            {"detectron2": "", "detectron2_error": "No module named 'pkg_resources'"},
            "error",
            "pkg_resources",
            "setuptools<81",
        ),
        (
            {"detectron2": "", "detectron2_error": "ImportError: _C.so: undefined symbol: x"},
            "error",
            "another torch",
            "force-reinstall",
        ),
        (
            {"detectron2_error": "AttributeError: module 'PIL.Image' has no attribute 'LINEAR'"},
            "error",
            "too old for this Pillow",
            "detectron2.git",
        ),
        (
            {"detectron2": "", "detectron2_error": "ImportError: libcudart.so.12: cannot open"},
            "error",
            "does not import: ImportError: libcudart.so.12",
            "force-reinstall",
        ),
        (
            {"detectron2_cuda": "not available"},
            "warning",
            "Detectron2 was built for the CPU",
            "FORCE_CUDA=1",
        ),
        (
            {"gpus": [("RTX 5060", "12.0")], "torch_archs": ["sm_80", "sm_90"]},
            "error",
            "has no kernel for RTX 5060",
            "pytorch.org",
        ),
        (
            {"torch": "2.4.1+cu121", "torchvision": "0.19.1+cu121"},
            "error",
            "torch 2.4.1+cu121 is too old: segroi needs 2.10",
            "--upgrade torch torchvision",
        ),
        (
            {"extension": {**SOUND.extension, "cuda": ""}, "nvcc": "tools, release 12.4, V12.4"},
            "warning",
            "nvcc is of CUDA 12.4, torch of CUDA 13.0",
            "CUDA_HOME=",
        ),
        (
            {"import_errors": {"opencv-python-headless": "ImportError: libGL.so.1: cannot open"}},
            "error",
            "opencv-python-headless does not import",
            "uninstall -y opencv-python;",
        ),
        (
            {"import_errors": {"pycocotools": "ValueError: numpy.dtype size changed"}},
            "error",
            "pycocotools does not import",
            "--force-reinstall pycocotools numpy",
        ),
        ({"python": "3.9.1"}, "error", "3.9.1", "3.10"),
        ({"packages": {**SOUND.packages, "fvcore": ""}}, "error", "fvcore", "install fvcore"),
    ],
)
def test_each_problem_names_itself_and_a_fix(change, level, says, fix):
    found = worst(replace(SOUND, **change))
    assert [f for f in found if f.level == level and says in f.what and fix in f.fix], found


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        ("8.0;9.0+PTX", "9.0", True),
        ("8.0", "8.6", True),
        ("8.6", "8.0", False),
        ("9.0", "10.0", False),
        ("9.0+PTX", "10.0", True),
        ("9.0a", "9.0", True),
        ("10.0", "9.0", False),
    ],
)
def test_architecture_rule(archs, capability, runs):
    assert runs_on(archs, capability) is runs


@pytest.mark.parametrize("archs", [["sm_80", "sm_90"], ["sm_120"], ["sm_75", "compute_90"], []])
def test_gpus_that_torch_knows(archs):
    """An empty list is a torch that does not say."""
    capability = {"sm_120": "12.0", "compute_90": "12.0"}.get(archs[-1] if archs else "", "9.0")
    extension = {**SOUND.extension, "cuda_archs": "9.0+PTX"}
    facts = replace(SOUND, torch_archs=archs, gpus=[("GPU", capability)], extension=extension)
    assert worst(facts) == []


def test_detectron2_that_is_not_there_is_no_fault():
    facts = replace(
        SOUND,
        detectron2="",
        detectron2_error="ModuleNotFoundError: No module named 'detectron2'",
    )
    assert worst(facts) == []


def test_torchvision_pair():
    assert matching_torchvision("2.14.1+cu130") == "0.29"
    assert matching_torchvision("2.11.0") == "0.26"


def test_doctor_reports_this_machine_as_json(capsys):
    code = doctor.run(doctor.argparse.Namespace(json=True))
    report = json.loads(capsys.readouterr().out)
    assert report["facts"]["torch"] == collect().torch != ""
    assert code == int(any(f["level"] == "error" for f in report["findings"]))
