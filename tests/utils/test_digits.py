from __future__ import annotations

import cv2
import numpy as np
import pytest

from segroi.utils.coco import load_coco
from segroi.utils.digits import SceneSpec, make_digits

pytest.importorskip("sklearn")
SPEC = SceneSpec(size=(96, 112), digits=(2, 5), side=(20, 48))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_digits(tmp_path_factory.mktemp("digits"), train=6, val=3, seed=3, spec=SPEC)


def test_same_seed_same_files_other_seed_other_files(made, tmp_path):
    again = make_digits(tmp_path / "again", train=6, val=3, seed=3, spec=SPEC)
    other = make_digits(tmp_path / "other", train=6, val=3, seed=4, spec=SPEC)
    assert again["train"].read_text() == made["train"].read_text()
    assert other["train"].read_text() != made["train"].read_text()
    for path in made["images"].iterdir():
        assert (again["images"] / path.name).read_bytes() == path.read_bytes()


def test_more_images_leave_the_first_ones_alone(made, tmp_path):
    more = make_digits(tmp_path, train=8, val=3, seed=3, spec=SPEC)
    name = "train_00005.png"
    assert (more["images"] / name).read_bytes() == (made["images"] / name).read_bytes()


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_are_visible_parts(made, split):
    coco = load_coco(made[split])
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list("0123456789")
    for image_id, image in coco.imgs.items():
        annotations = coco.imgToAnns[image_id]
        masks = np.stack([coco.annToMask(a) for a in annotations])
        picture = cv2.imread(str(made["images"] / image["file_name"]))
        assert picture.shape == (96, 112, 3) and masks.shape[1:] == (96, 112)
        assert masks.sum(0).max() == 1, "two digits claim one pixel"
        for mask, annotation in zip(masks, annotations):
            assert annotation["area"] == mask.sum() > 0
            ys, xs = np.nonzero(mask)
            x, y, w, h = annotation["bbox"]
            assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_digits_differ_from_their_ground(made):
    coco = load_coco(made["train"])
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        picture = cv2.imread(str(made["images"] / image["file_name"])).astype(float)
        every = sum(coco.annToMask(a) for a in coco.imgToAnns[image["id"]])
        ink = np.median(picture[coco.annToMask(annotation) > 0], axis=0)
        ground = np.median(picture[every == 0], axis=0)
        assert np.abs(ink - ground).max() > 40
