import pytest
import torch
from torchvision.models import detection
from torchvision.ops import MultiScaleRoIAlign

from segroi.tv.poolers import FusedRoIAlign, replace_poolers

OPTIONS = {"weights": None, "weights_backbone": None, "num_classes": 3}


def scene(levels=4, images=2):
    torch.manual_seed(0)
    maps = {str(k): torch.randn(images, 5, 256 >> k + 2, 320 >> k + 2) for k in range(levels)}
    corner = torch.rand(images, 30, 2) * 150
    boxes = list(torch.cat([corner, corner + 4 + 100 * torch.rand(images, 30, 2)], 2))
    return maps, boxes, [(250, 300), (256, 320)]


@pytest.mark.parametrize("sampling_ratio", [-1, 0, 2])
@pytest.mark.parametrize("levels", [1, 3, 4])
def test_equals_torchvision_with_its_gradients(levels, sampling_ratio):
    maps, boxes, sizes = scene(levels)
    arguments = (list(maps), (3, 5), sampling_ratio)
    results = []
    for kind in (MultiScaleRoIAlign, FusedRoIAlign):
        own = {name: m.clone().requires_grad_() for name, m in maps.items()}
        # a small canonical scale spreads the boxes over all levels
        out = kind(*arguments, canonical_scale=60)(own, boxes, sizes)
        gradient = torch.autograd.grad(out.square().sum(), own.values(), allow_unused=True)
        results.append((out, gradient))
    torch.testing.assert_close(*results)


def test_half_boxes_keep_their_model_running():
    maps, boxes, sizes = scene()
    pool = FusedRoIAlign(list(maps), 7, 2)
    half = pool({k: m.half() for k, m in maps.items()}, [b.round().half() for b in boxes], sizes)
    whole = pool(maps, [b.round() for b in boxes], sizes)
    torch.testing.assert_close(half.float(), whole, rtol=1e-2, atol=1e-2)


def test_a_model_of_torchvision_finds_the_same():
    torch.manual_seed(0)
    small = {"min_size": 96, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 10}
    model = detection.maskrcnn_resnet50_fpn(**OPTIONS, **small, box_score_thresh=0).eval()
    images = [torch.rand(3, 90, 120), torch.rand(3, 110, 80)]
    with torch.no_grad():
        expected = model(images)
        names = set(model.state_dict())
        assert replace_poolers(model) == ["roi_heads.box_roi_pool", "roi_heads.mask_roi_pool"]
        found = model(images)
    assert set(model.state_dict()) == names and sum(len(f["boxes"]) for f in found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert replace_poolers(model) == []


def test_a_model_without_poolers_stays_as_it_is():
    assert replace_poolers(torch.nn.Linear(2, 2)) == []
