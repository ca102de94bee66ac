"""Two processes that train together (gloo, CPU), one of whose images holds no objects."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from test_d2_roi_heads import batch, build, small_yacs
from torch.nn.parallel import DistributedDataParallel

OBJECTS = (2, 0)  # per process


def _step(model, rank):
    """Gradients of the losses on the images of a process."""
    torch.manual_seed(rank)  # the sampling of proposals
    images, features, found, truth = batch(objects=OBJECTS[rank], proposals=4)
    with EventStorage():
        losses = model.train()(images, features, found, truth)[1]
    sum(losses.values()).backward()
    return {name.removeprefix("module."): p.grad.clone() for name, p in model.named_parameters()}


def _heads():
    cfg = small_yacs()
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = "GRoIE"
    cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = "MultiScaleSubnetwork"
    torch.manual_seed(7)
    return build(cfg)


def _process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(_heads(), broadcast_buffers=False)
    torch.save(_step(model, rank), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_average_the_gradients_of_one(tmp_path):
    mp.spawn(_process, args=(str(tmp_path),), nprocs=2)
    alone = [_step(_heads(), rank) for rank in (0, 1)]
    together = [torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1)]
    for name in alone[0]:
        mean = (alone[0][name] + alone[1][name]) / 2
        for found in together:
            torch.testing.assert_close(found[name], mean, rtol=1e-4, atol=1e-6, msg=name)
