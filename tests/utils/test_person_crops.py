from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from segroi.utils.person_crops import (
    Person,
    PersonCrops,
    cityscapes_people,
    coco_people,
    crop_person,
    grow_box,
    make_person_crops,
)
from segroi.utils.suggest import UsageError


def scene(tmp_path):
    """A photograph with two persons, a crowd and a dog, in COCO format."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[10:50, 20:30] = (0, 0, 255)  # red in OpenCV's order
    image[40:60, 60:80] = (0, 255, 0)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "street.png"), image)

    def annotation(number, category, x0, y0, x1, y1, crowd=0):
        polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
        box = [x0, y0, x1 - x0, y1 - y0]
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
        area = (x1 - x0) * (y1 - y0)
        return dict(zip(keys, (number, 1, category, box, area, crowd, [polygon])))

    crowd = annotation(9, 1, 0, 0, 5, 5, crowd=1)
    crowd["segmentation"] = {"size": [60, 80], "counts": [0, 5, 4795]}
    annotations = [
        annotation(7, 1, 20, 10, 30, 50),
        annotation(8, 1, 60, 40, 80, 60),
        crowd,
        annotation(10, 2, 0, 0, 9, 9),
    ]
    data = {
        "images": [{"id": 1, "file_name": "street.png", "height": 60, "width": 80}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }
    json_file = tmp_path / "coco.json"
    json_file.write_text(json.dumps(data))
    return json_file, tmp_path / "images"


@pytest.mark.parametrize("box", [(10.0, 0.0, 20.0, 100.0), (0.0, 0.0, 50.0, 10.0)])
@pytest.mark.parametrize("background", [0.0, 0.05, 0.1])
def test_grown_box_keeps_the_centre_and_has_the_aspect(box, background):
    x0, y0, x1, y1 = grow_box(box, 5 / 3, background)
    assert (x0 + x1, y0 + y1) == pytest.approx((box[0] + box[2], box[1] + box[3]))
    assert (y1 - y0) / (x1 - x0) == pytest.approx(5 / 3)
    tight_x0, _, tight_x1, _ = grow_box(box, 5 / 3, 0.0)
    assert tight_x0 <= box[0] and tight_x1 >= box[2]
    assert x1 - x0 == pytest.approx((1 + 2 * background) * (tight_x1 - tight_x0))


def test_people_of_a_coco_file(tmp_path):
    people = list(coco_people(*scene(tmp_path)))
    assert [p.name for p in people] == ["street_7", "street_8"]
    assert people[0].box == (20, 10, 30, 50)
    assert people[0].mask.sum() == 400 and people[0].mask[10:50, 20:30].all()


def test_unknown_category(tmp_path):
    with pytest.raises(UsageError, match="unknown category 'persn': did you mean person"):
        next(coco_people(*scene(tmp_path), category="persn"))


def test_detected_boxes_take_the_place_of_the_annotated(tmp_path):
    json_file, images = scene(tmp_path)
    keys = ("image_id", "category_id", "bbox", "score")
    boxes = [[19, 9, 12, 40], [20, 10, 10, 39], [60, 40, 5, 5]]  # the last meets its person barely
    results = [dict(zip(keys, (1, 1, box, 0.9))) for box in boxes]
    results.append(dict(zip(keys, (1, 2, [60, 40, 20, 20], 0.9))))  # a dog
    (tmp_path / "results.json").write_text(json.dumps(results))
    people = list(coco_people(json_file, images, detections=tmp_path / "results.json"))
    assert [(p.name, p.box) for p in people] == [("street_7", (20, 10, 30, 49))]
    assert people[0].mask.sum() == 400


def test_people_of_cityscapes(tmp_path):
    ids = np.zeros((20, 30), np.uint16)
    ids[2:12, 3:8] = 24_001
    ids[5:10, 20:25] = 24_002
    ids[15:, 15:] = 24  # a group
    ids[0, :5] = 25_000  # a rider
    folder = tmp_path / "gtFine" / "val" / "ulm"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "ulm_000001_000019_gtFine_instanceIds.png"), ids)
    people = list(cityscapes_people(tmp_path, "val"))
    assert [p.name for p in people] == ["ulm_000001_000019_24001", "ulm_000001_000019_24002"]
    assert [p.box for p in people] == [(3, 2, 8, 12), (20, 5, 25, 10)]
    expected = tmp_path / "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"
    assert people[0].image_file == expected


def test_crop_labels_the_centred_person_only():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:30] = 1
    image = np.dstack([mask * 200] * 3)
    image[10:50, 31:40] = 90  # a neighbour
    crop, label = crop_person(image, Person("a", None, (20, 10, 30, 50), mask), (40, 24), 0.0)
    assert crop.shape == (40, 24, 3) and label.shape == (40, 24)
    assert set(np.unique(label)) == {0, 1}
    assert (label == 1).sum() == 400
    assert ((crop[..., 0] == 200) == (label == 1)).all()
    assert (crop[label == 0] == 90).any()


def test_outside_of_the_image_is_zero_and_ignored():
    image, mask = np.full((60, 80, 3), 7, np.uint8), np.zeros((60, 80), np.uint8)
    mask[40:60, 60:80] = 1
    person = Person("a", None, (60, 40, 80, 60), mask)
    crop, label = crop_person(image, person, (50, 30), 0.1)
    assert set(np.unique(label)) == {0, 1, 255}
    assert (crop[label == 255] <= 3).mean() > 0.9 and (crop[label == 1] >= 4).all()


@pytest.mark.parametrize(("size", "background"), [((50, 30), 0.0), ((20, 12), 0.1)])
def test_written_crops_are_read_again(tmp_path, size, background):
    out = tmp_path / "crops"
    assert make_person_crops(coco_people(*scene(tmp_path)), out, size, background) == 2
    dataset = PersonCrops(out)
    assert len(dataset) == 2
    image, label = dataset[0]
    assert image.shape == (3, *size) and image.dtype == torch.float32 and image.max() <= 1
    assert label.shape == size and label.dtype == torch.int64
    inside = image[:, label == 1].mean(1)
    assert inside[0] > 0.9 and inside[2] < 0.1  # red comes first


def test_flip_mirrors_image_and_label_together(tmp_path):
    make_person_crops(coco_people(*scene(tmp_path)), tmp_path / "crops", (20, 12), 0.1)
    plain, flipped = PersonCrops(tmp_path / "crops"), PersonCrops(tmp_path / "crops", flip=True)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        image, label = flipped[1]
        mirrored = torch.equal(label, plain[1][1].flip(-1))
        assert torch.equal(image, plain[1][0].flip(-1) if mirrored else plain[1][0])
        seen.add(mirrored)
    assert seen == {True, False}


def test_missing_photograph(tmp_path):
    json_file, images = scene(tmp_path)
    (images / "street.png").unlink()
    with pytest.raises(FileNotFoundError, match="street.png"):
        make_person_crops(coco_people(json_file, images), tmp_path / "crops")
