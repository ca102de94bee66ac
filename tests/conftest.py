import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--runbig", action="store_true", help="run tests that need more than 8 GB")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("big") and not config.getoption("--runbig"):
            item.add_marker(pytest.mark.skip(reason="needs --runbig"))
