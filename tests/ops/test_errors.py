import pytest
import torch

from segroi.ops.errors import check_errors


def test_nothing_to_report_on_a_cpu_build():
    check_errors()


def test_schema_is_registered():
    assert "int device" in str(torch.ops.segroi.take_error.default._schema)


def test_every_operator_answers_cuda_tensors():
    """With a kernel, or in a build without CUDA with a text that says what to do."""
    without_tensors = {"segroi::take_error", "segroi::build_info"}
    names = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("segroi::")}
    names -= without_tensors
    answers = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    missing = [n for n in names if not answers(n, "CUDA")]
    assert names and not missing


@pytest.mark.cuda
def test_clear_after_a_report():
    check_errors()
    assert torch.ops.segroi.take_error(0) == ""
