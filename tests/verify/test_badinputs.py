from __future__ import annotations

import argparse
import json
import subprocess
import sys

from segroi.verify import badinputs
from segroi.verify.suite import all_cases

# The runner forks, which is safe only where no thread pool has started: not in this process.
PROBES = """
import os, signal, time
from segroi.verify.outcome import Outcome, isolated
import torch
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
def leave(): os._exit(3)
def hang(): time.sleep(60)
def fail(): raise ValueError("op: argument\\nsecond line")
def eat(): torch.empty(1 << 40)
print(isolated(crash, 5))
print(isolated(leave, 5))
print(isolated(hang, 0.3))
print(isolated(fail, 5))
print(isolated(eat, 5, 8 << 30).kind)
print(isolated(lambda: Outcome("value", "1"), 5))
"""


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test_outcomes_are_contained():
    assert python("-c", PROBES).stdout.splitlines() == [
        "crash: SIGSEGV",
        "crash: exit 3",
        "hang: no answer in 0.3 s",
        "raised: ValueError: op: argument",
        "raised",
        "value: 1",
    ]


def test_cases_are_many_and_distinct():
    names = [(case.op, case.name) for case in all_cases()]
    assert len(names) == len(set(names)) >= 150


def test_a_part_of_the_cases():
    done = python("-m", "segroi.verify", "badinputs", "--every", "9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BAD" not in done.stdout and "cases on cpu" in done.stdout


def test_no_cases_are_no_success():
    parser = argparse.ArgumentParser()
    badinputs.add_arguments(parser)
    assert badinputs.run(parser.parse_args(["--only", "no such case"])) == 1


def test_outcomes_as_json():
    words = ("badinputs", "--every", "60", "--compare", "torchvision", "--json")
    told = json.loads(python("-m", "segroi.verify", *words).stdout)
    assert sum(told["count"].values()) == len(told["cases"]) > 1
    assert {"op", "case", "segroi"} <= set(told["cases"][0])
