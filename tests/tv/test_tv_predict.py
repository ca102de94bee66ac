import pytest
import torch
from tiny_run import tiny_arguments

from segroi.tv.models import build_model
from segroi.tv.predict import above, drop_below


@pytest.mark.parametrize(("name", "masks"), [("mask_rcnn", "mask_head"), ("ssd_isb", "branches")])
@torch.no_grad()
def test_masks_are_made_for_what_is_shown_alone(name, masks):
    torch.manual_seed(0)
    model = build_model(name, 2, **tiny_arguments(name)).eval()
    for parameter in model.parameters():  # so that scores differ
        parameter.add_(0.05 * torch.randn_like(parameter))
    seen = []
    inputs = 0 if masks == "mask_head" else 1  # crops, or the maps and the boxes
    part = next(m for n, m in model.named_modules() if n.endswith(masks))
    part.register_forward_hook(lambda _, given, __: seen.append(len(given[inputs])))
    images = [torch.rand(3, 60, 64), torch.rand(3, 64, 50)]
    whole = model(images)
    threshold = float(torch.cat([found["scores"] for found in whole]).median())
    drop_below(model, threshold)
    few = model(images)
    for one, other in zip(whole, few):
        torch.testing.assert_close(above(other, threshold), above(one, threshold))
    assert 0 < seen[1] < seen[0]
    drop_below(model, 0.0)
    assert len(model(images)[0]["scores"]) == len(few[0]["scores"]), "a threshold is never lowered"
