from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segroi.utils.images import list_images, load_image
from segroi.utils.suggest import UsageError

WIDE = np.zeros((4, 6, 3), np.uint8)
WIDE[0, 0] = (255, 0, 0)  # red at the top left


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [("L", "grey.png", 255), ("CMYK", "cmyk.jpg", 255), ("P", "p.png", 255), ("1", "one.png", 255)],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name, value):
    Image.new("RGB", (6, 4), "white").convert(mode).save(tmp_path / name)
    pixels = load_image(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.shape == (4, 6, 3) and pixels.min() >= value - 3


def test_sixteen_bit_keeps_its_range(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png")[0, :, 1].tolist() == [0, 100, 255]


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (load_image(tmp_path / "clear.png") == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.fromarray(WIDE)
    exif = picture.getexif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png")
    assert upright.shape == (6, 4, 3) and upright[0, 3].tolist() == [255, 0, 0]
    assert load_image(tmp_path / "turned.png", (6, 4)).shape == (6, 4, 3)
    as_stored = load_image(tmp_path / "turned.png", (4, 6))  # annotated on the stored pixels
    assert as_stored[0, 0].tolist() == [255, 0, 0]


def test_errors_name_the_file(tmp_path):
    Image.fromarray(WIDE).save(tmp_path / "picture.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "picture.png").read_bytes()[:40])
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(
        UsageError, match=r"pictur\.png does not exist \(did you mean .*picture\.png"
    ):
        load_image(tmp_path / "pictur.png")
    for name in ("broken.png", "empty.jpg"):
        with pytest.raises(UsageError, match=f"{name} cannot be read"):
            load_image(tmp_path / name)
    with pytest.raises(UsageError, match="annotated as 9x9 .* the file has 4x6"):
        load_image(tmp_path / "picture.png", (9, 9))


def test_list_images(tmp_path):
    for name in ("b.png", "a.JPG"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        list_images(tmp_path / "none")
    with pytest.raises(UsageError, match="does not exist"):
        list_images(tmp_path / "nowhere")
