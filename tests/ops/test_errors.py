import pytest
import torch

from segroi.ops.errors import check_errors


def test_nothing_to_report_on_a_cpu_build():
    check_errors()


def test_schema_is_registered():
    assert "int device" in str(torch.ops.segroi.take_error.default._schema)


@pytest.mark.cuda
def test_clear_after_a_report():
    check_errors()
    assert torch.ops.segroi.take_error(0) == ""
