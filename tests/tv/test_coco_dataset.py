from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_codec
from tiny_run import annotation, write

from segroi.tv.data import CocoDataset, Draw, IterationSampler, collate
from segroi.utils.suggest import UsageError

CATEGORIES = [{"id": 5, "name": "thing"}]
IMAGES = [{"id": 1, "file_name": "1.png", "height": 64, "width": 80}]


def dataset_of(squares, tmp_path, annotations, categories=CATEGORIES, **options):
    path = write(tmp_path / "some.json", IMAGES, annotations, categories)
    return CocoDataset(path, squares / "images", **options)


def test_labels_close_the_gaps_of_the_ids(squares):
    dataset = CocoDataset(squares / "data.json", squares / "images")
    assert dataset.categories == [{"id": 3, "name": "red"}, {"id": 40, "name": "green"}]
    image, target = dataset[0]
    assert image.shape == (3, 64, 80) and image.dtype == torch.float32 and image.max() <= 1
    assert target["labels"].tolist() == [1, 2]
    assert [dataset.category_id(label) for label in (1, 2)] == [3, 40]
    for mask, (x0, y0, x1, y1) in zip(target["masks"], target["boxes"].int().tolist()):
        assert mask.sum() == (x1 - x0) * (y1 - y0) == mask[y0:y1, x0:x1].sum()


def test_image_without_instances(squares):
    dataset = CocoDataset(squares / "data.json", squares / "images")
    _, target = dataset[5]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 64, 64)


def test_flip_mirrors_everything(squares):
    dataset = CocoDataset(squares / "data.json", squares / "images")
    image, target = dataset[Draw(0)]
    mirrored, flipped = dataset[Draw(0, flip=True)]
    assert torch.equal(mirrored.flip(-1), image)
    for mask, box in zip(flipped["masks"], flipped["boxes"]):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert torch.stack(tight).float().equal(box)
    assert not torch.equal(flipped["boxes"], target["boxes"])


def test_rle_crowd_and_degenerate_boxes(squares, tmp_path):
    mask = np.zeros((64, 80), np.uint8, order="F")
    mask[10:20, 30:50] = 1
    code = rle_codec.encode(mask)
    packed = {"size": code["size"], "counts": code["counts"].decode()}
    runs = {"size": [64, 80], "counts": [30 * 64, 64, 49 * 64]}
    dataset = dataset_of(
        squares,
        tmp_path,
        [
            annotation(1, 1, 5, [30, 10, 20, 10], segmentation=packed),
            annotation(2, 1, 5, [30, 0, 1, 64], segmentation=runs),
            annotation(3, 1, 5, [0, 0, 40, 40], iscrowd=1, segmentation=runs),
            annotation(4, 1, 5, [10, 10, 0, 5]),
            annotation(5, 1, 5, [70, 40, 30, 10]),
            annotation(6, 1, 5, [200, 40, 30, 10]),
        ],
    )
    _, target = dataset[0]
    wanted = [[30, 10, 50, 20], [30, 0, 31, 64], [70, 40, 80, 50]]
    assert target["boxes"].tolist() == wanted, "the last is clipped to the image"
    assert target["masks"].flatten(1).sum(1).tolist() == [200, 64, 100]
    assert torch.equal(target["masks"][0], torch.from_numpy(mask))


def test_categories_of_a_trained_model_are_kept(squares, tmp_path):
    trained = [{"id": 1, "name": "a"}, {"id": 5, "name": "thing"}]
    dataset = dataset_of(squares, tmp_path, [annotation(1, 1, 5, [1, 1, 9, 9])], categories=trained)
    assert dataset[0][1]["labels"].tolist() == [2]
    with pytest.raises(UsageError, match=r"category ids \[5\] are not among the known: 1=a"):
        CocoDataset(tmp_path / "some.json", squares / "images", trained[:1])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (annotation(7, 1, 99, [1, 1, 9, 9]), r"category ids \[99\] are not among"),
        (annotation(7, 1, 5, [1, 1, 9, 9], segmentation=[[1, 2]]), "annotation 7 of image 1"),
    ],
)
def test_broken_annotations_are_named(squares, tmp_path, entry, message):
    with pytest.raises(UsageError, match=message):
        dataset_of(squares, tmp_path, [entry])[0]


def test_wrong_folder_and_missing_image(squares, tmp_path):
    with pytest.raises(UsageError, match="did you mean .*images"):
        CocoDataset(squares / "data.json", squares / "image")
    dataset = CocoDataset(squares / "data.json", tmp_path)
    with pytest.raises(UsageError, match=r"1\.png does not exist"):
        dataset[0]


def test_batches_depend_on_seed_and_iteration_alone():
    whole = list(IterationSampler(5, 2, (0, 10), seed=1))
    assert list(IterationSampler(5, 2, (4, 10), seed=1)) == whole[4:]
    assert list(IterationSampler(5, 2, (0, 10), seed=2)) != whole
    drawn = [draw.index for batch in whole for draw in batch]
    for epoch in range(4):
        assert sorted(drawn[5 * epoch : 5 * epoch + 5]) == list(range(5))
    assert {draw.flip for batch in whole for draw in batch} == {True, False}


def test_collate_keeps_sizes(squares):
    dataset = CocoDataset(squares / "data.json", squares / "images")
    images, targets = collate([dataset[0], dataset[1]])
    assert [i.shape[-1] for i in images] == [80, 64] and len(targets) == 2
