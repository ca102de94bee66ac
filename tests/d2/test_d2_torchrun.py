"""torchrun starts two processes of a launcher (gloo, CPU): the losses are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Everything that could be drawn by lot is taken whole: every anchor, every proposal.
WHOLE = [
    "model.proposal_generator.batch_size_per_image=100000",
    "model.proposal_generator.nms_thresh=1.0",
    "model.proposal_generator.pre_nms_topk=[40,40]",
    "model.proposal_generator.post_nms_topk=[20,20]",
    "model.roi_heads.batch_size_per_image=1000",
    "model.roi_heads.positive_fraction=1.0",
    "model.backbone.bottom_up.norm=FrozenBN",  # statistics are those of a process
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two digit scenes of as many objects each, so that every image weighs the same."""
    from segroi.utils.digits import SceneSpec, make_digits

    folder = tmp_path_factory.mktemp("pairs")
    make_digits(folder, 2, 2, spec=SceneSpec(size=(96, 96), digits=(2, 2), side=(24.0, 40.0)))
    return folder


def run(root, pairs, output, processes):
    words = [str(root / "scripts" / "lazyconfig_train_net.py")]
    words += ["--config-file", str(root / "configs" / "quick" / "mask_rcnn_groie_digits.py")]
    words += ["--data-json", str(pairs / "train.json"), "--images", str(pairs / "images")]
    words += ["--val-json", str(pairs / "val.json"), f"train.output_dir={output}", *WHOLE]
    words += ["dataloader.train.total_batch_size=2", "train.max_iter=2", "train.log_period=1"]
    words += [
        f"dataloader.{s}.mapper.augmentations.0.short_edge_length=96" for s in ("train", "test")
    ]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*start, *words],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(root, pairs, tmp_path):
    alone = run(root, pairs, tmp_path / "alone", 1)
    together = run(root, pairs, tmp_path / "together", 2)
    assert (tmp_path / "together" / "log.txt.rank1").exists(), "there was a second process"
    first, other = alone[0], together[0]
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"):
        assert other[name] == pytest.approx(first[name], rel=1e-4), name
    # a mean over the positive boxes, of which the two images may have different numbers
    assert other["loss_mask"] == pytest.approx(first["loss_mask"], rel=0.02)
    runs = [tmp_path / name for name in ("alone", "together")]
    both = [json.loads((run / "evaluated.json").read_text()) for run in runs]
    assert both[0]["count"] == both[1]["count"] == 2
    assert (tmp_path / "together" / "report.html").exists()
