from __future__ import annotations

import json

import broken_set
import pytest
from broken_set import annotation, broken, image, sound, write
from PIL import Image

from segroi.utils.data_check import RULES, check_dataset, check_split
from segroi.utils.suggest import UsageError


def codes(findings) -> set[str]:
    return set(findings.counts)


def check(path, **options):
    return check_dataset(path, path.parent / "images", **options)


# Faults of a file as a whole: code -> (text of the file, part of what is told)
TEXTS = {
    "json-truncated": ('{"images": [{"id": 1, "file_na', "line 1"),
    "json-invalid": ('{"images": [,]}', "column 13"),
    "json-nan": ('{"images": [], "annotations": [], "categories": [], "x": NaN}', "1 of NaN"),
    "not-coco": ('{"images": [], "shapes": []}', "has no list annotations, categories"),
    "image-none": ('{"images": [], "annotations": [], "categories": []}', "no image"),
    "category-none": ('{"images": [], "annotations": [], "categories": []}', "no category"),
}


def _crowds(path):
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    return data


def _boxes(path, change):
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry["bbox"] = change(*entry["bbox"])
    return data


# Faults of all entries together: code -> content made of a sound file
SETS = {
    "annotation-none": lambda path: json.loads(path.read_text()) | {"annotations": []},
    "annotation-crowd-only": _crowds,
    "box-xyxy": lambda path: _boxes(path, lambda x, y, w, h: [x, y, x + w, y + h]),
    "box-normalised": lambda path: _boxes(
        path, lambda x, y, w, h: [x / 40, y / 30, w / 40, h / 30]
    ),
    "category-gaps": lambda path: (
        json.loads(path.read_text()) | {"categories": [{"id": i, "name": str(i)} for i in (1, 9)]}
    ),
}
# The mask of the sound annotations as run lengths.
SQUARE = {"size": [30, 40], "counts": [124, *[16, 14] * 19, 16, 490]}
ELSEWHERE = {"json-encoding", "json-bom", "json-huge", "image-huge", "image-large"}
ELSEWHERE |= {"image-single", "image-permission", "split-none", "split-overlap", "split-categories"}


def test_a_sound_set_has_no_findings(tmp_path):
    findings = check(sound(tmp_path))
    assert findings.ok and not findings.counts


def test_every_fault_is_found_with_its_entry_and_a_remedy(tmp_path):
    path, where = broken(tmp_path)
    findings = check(path)
    for code, number in where.items():
        ids = [f.id for f in findings.kept[code]]
        assert number in ids, f"{code}: found at {ids}"
        assert all(f.fix and f.what and f.file == str(path) for f in findings.kept[code])
    allowed = {"category-gaps"}
    assert codes(findings) - set(where) <= allowed
    once = [*broken_set.ANNOTATIONS, "image-truncated", "image-exif", "image-cmyk"]
    assert {code: findings.counts[code] for code in once if findings.counts[code] != 1} == {}
    hint = [f.what for f in findings.kept["image-missing"] if f.id == 100]
    assert "no such file" in hint[0]


def test_the_catalogue_is_tested_whole():
    tested = {*broken_set.PICTURES, *broken_set.ANNOTATIONS, *TEXTS, *SETS, *ELSEWHERE}
    tested |= {"image-duplicate-id", "image-duplicate-file", "image-size-field", "image-path"}
    tested |= {"entry-broken", "image-no-annotations", "annotation-duplicate-id"}
    tested |= {"image-many-instances", "category-duplicate-id", "category-duplicate-name"}
    tested |= {"category-unused", "category-rare"}
    assert tested == set(RULES)


@pytest.mark.parametrize("code", TEXTS)
def test_faults_of_the_text(tmp_path, code):
    text, told = TEXTS[code]
    sound(tmp_path)
    (tmp_path / "data.json").write_text(text)
    findings = check(tmp_path / "data.json")
    assert code in codes(findings) and not findings.ok
    assert told in findings.kept[code][0].what


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_a_text_cut_anywhere_is_truncated(tmp_path, cut):
    text = sound(tmp_path).read_text()
    (tmp_path / "data.json").write_text(text[: int(len(text) * cut)])
    assert codes(check(tmp_path / "data.json")) == {"json-truncated"}


def test_byte_order_mark_encoding_and_size(tmp_path, monkeypatch):
    path = sound(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + raw)
    findings = check(path)
    assert codes(findings) == {"json-bom"} and findings.ok
    path.write_bytes(raw.replace(b"thing", b"th\xefng"))
    assert codes(check(path)) == {"json-encoding"}
    path.write_bytes(raw)
    monkeypatch.setattr("segroi.utils.data_check.content.HUGE", 100)
    assert codes(check(path)) == {"json-huge"}


@pytest.mark.parametrize("code", SETS)
@pytest.mark.parametrize("masks", ["polygons", "rle"])
def test_faults_of_the_whole_set(tmp_path, code, masks):
    path = sound(tmp_path)
    data = SETS[code](path)
    if masks == "rle":
        for entry in data["annotations"]:
            entry["segmentation"] = SQUARE
    path.write_text(json.dumps(data))
    findings = check(path)
    assert code in codes(findings)
    assert findings.ok == (RULES[code].severity == "info")


def test_boxes_that_fill_their_images_are_no_corners(tmp_path):
    path = sound(tmp_path)
    path.write_text(json.dumps(_boxes(path, lambda *_: [0, 0, 40, 30])))
    assert "box-xyxy" not in codes(check(path))


def test_upright_sizes_are_right(tmp_path):
    path = sound(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "images" / "1.png", format="JPEG", exif=exif)
    assert not check(path).counts, "shown, the picture is 40 wide and 30 high as annotated"


def test_large_images_and_bombs(tmp_path, monkeypatch):
    path = sound(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert codes(check(path)) == {"image-large"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    findings = check(path)
    assert codes(findings) == {"image-huge"} and "1200" in findings.kept["image-huge"][0].what


def test_unreadable_images(tmp_path, monkeypatch):
    path = sound(tmp_path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refused)
    assert codes(check(path)) == {"image-permission"}


def test_one_image(tmp_path):
    assert codes(check(sound(tmp_path, count=1))) == {"image-single"}


def test_the_quick_check_opens_a_sample_and_misses_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("segroi.utils.data_check.check.SAMPLE", 4)
    path = sound(tmp_path, count=12)
    (tmp_path / "images" / "7.png").unlink()
    (tmp_path / "images" / "12.png").write_text("no image")
    findings = check(path, quick=True)
    assert codes(findings) == {"image-missing"}, "12.png is not in the sample"
    (tmp_path / "images" / "10.png").write_text("no image")
    assert codes(check(path, quick=True)) == {"image-missing", "image-damaged"}


def test_the_name_of_a_missing_file_is_guessed(tmp_path):
    path = sound(tmp_path)
    write(tmp_path, [image(1, "train/1.jpg"), image(2, "2.png")], [annotation(1)])
    (finding,) = check(path).kept["image-missing"]
    assert finding.what.endswith("images has 1.png")


def test_training_beside_validation(tmp_path):
    ours, theirs = sound(tmp_path / "a", 3), sound(tmp_path / "b", 2)
    images = str(tmp_path / "a" / "images")
    assert codes(check_split((ours, images), None)) == {"split-none"}
    findings = check_split((ours, images), (theirs, images))
    assert codes(findings) == {"split-overlap"} and findings.counts["split-overlap"] == 2
    assert not check_split((ours, images), (theirs, tmp_path / "b" / "images")).counts
    data = json.loads(theirs.read_text())
    data["categories"][0]["name"] = "other"
    theirs.write_text(json.dumps(data))
    findings = check_split((ours, images), (theirs, tmp_path / "b" / "images"))
    assert codes(findings) == {"split-categories"} and not findings.ok
    assert "1=other, 1=thing" in findings.kept["split-categories"][0].what


def test_missing_file_or_folder(tmp_path):
    path = sound(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        check_dataset(tmp_path / "none.json", tmp_path)
    with pytest.raises(UsageError, match="image folder"):
        check_dataset(path, tmp_path / "nowhere")


@pytest.mark.parametrize("entry", [None, 3, "x", [], {"id": True}, {"id": None, "name": 4}])
def test_entries_of_any_kind_are_told_not_raised(tmp_path, entry):
    path = sound(tmp_path)
    data = json.loads(path.read_text())
    for key in ("images", "annotations", "categories"):
        data[key].append(entry)
    path.write_text(json.dumps(data))
    assert check(path).counts["entry-broken"] == 3
