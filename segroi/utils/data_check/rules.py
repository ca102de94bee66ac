"""The catalogue of what can be wrong with a data set: how bad it is, and what to do."""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)


class Rule(NamedTuple):
    """Severity (an error stops training or makes it learn something wrong) and remedy."""

    severity: str
    fix: str


_FILE = {
    "json-truncated": Rule(ERROR, "copy or download the file again: its end is missing"),
    "json-invalid": Rule(ERROR, "mend the text at that line and column"),
    "json-encoding": Rule(ERROR, "save the file as UTF-8"),
    "json-bom": Rule(WARNING, "save the file as UTF-8 without a byte order mark"),
    "json-nan": Rule(ERROR, "write numbers: JSON has no NaN and no Infinity"),
    "json-huge": Rule(WARNING, "split the file, or see that the memory is there"),
    "not-coco": Rule(ERROR, "export as COCO instances: images, annotations, categories"),
    "entry-broken": Rule(ERROR, "give the entry the keys and types of COCO's format"),
}
_CATEGORIES = {
    "category-none": Rule(ERROR, "list the categories (id and name)"),
    "category-duplicate-id": Rule(ERROR, "give every category an id of its own"),
    "category-duplicate-name": Rule(WARNING, "merge the categories or rename one"),
    "category-gaps": Rule(INFO, "nothing to do: labels are numbered in the order of the ids"),
    "category-unused": Rule(WARNING, "remove the category, or annotate it: it is never learnt"),
    "category-rare": Rule(INFO, "annotate more: a class of so few instances is hardly learnt"),
}
_IMAGES = {
    "image-none": Rule(ERROR, "list the images"),
    "image-single": Rule(WARNING, "add images: one of them tells nothing of others"),
    "image-duplicate-id": Rule(ERROR, "give every image an id of its own"),
    "image-duplicate-file": Rule(WARNING, "keep one entry a file, with all its annotations"),
    "image-size-field": Rule(ERROR, "write height and width as whole numbers of pixels"),
    "image-path": Rule(ERROR, "name files relative to --images, without leaving it"),
    "image-missing": Rule(ERROR, "copy the file there, correct file_name, or give other --images"),
    "image-permission": Rule(ERROR, "make the file readable (chmod)"),
    "image-empty-file": Rule(ERROR, "copy the file again: it has no bytes"),
    "image-damaged": Rule(ERROR, "copy or convert the file: it is no image that can be read"),
    "image-truncated": Rule(ERROR, "copy the file again: its end is missing"),
    "image-size": Rule(ERROR, "correct height and width, or use the images that were annotated"),
    "image-exif": Rule(
        WARNING, "rotate the pixels and drop the EXIF orientation: Detectron2 refuses this one"
    ),
    "image-huge": Rule(ERROR, "cut into tiles or shrink it, and its annotations with it"),
    "image-large": Rule(WARNING, "cut into tiles or shrink it: loading it is slow"),
    "image-tiny": Rule(WARNING, "leave it out: nothing can be seen on it"),
    "image-16-bit": Rule(WARNING, "convert to 8 bit yourself if the range is not 0 to 65535"),
    "image-cmyk": Rule(WARNING, "convert to RGB: hosts differ in the colours they make of it"),
    "image-palette": Rule(INFO, "nothing to do: the palette is turned into RGB"),
    "image-alpha": Rule(INFO, "nothing to do: transparent parts turn white"),
    "image-animated": Rule(WARNING, "save the frame that was annotated: the first is used"),
}
_ANNOTATIONS = {
    "annotation-none": Rule(ERROR, "annotate: there is nothing to learn from"),
    "annotation-crowd-only": Rule(ERROR, "annotate single instances: crowds are not learnt from"),
    "annotation-duplicate-id": Rule(ERROR, "number the annotations anew"),
    "annotation-image": Rule(ERROR, "remove the annotation, or list its image"),
    "annotation-category": Rule(ERROR, "correct category_id, or list the category"),
    "annotation-no-area": Rule(WARNING, "add the area in px: COCO's evaluation needs it"),
    "annotation-no-mask": Rule(WARNING, "add a mask: without it the instance is left out"),
    "image-no-annotations": Rule(INFO, "nothing to do if nothing is to be found there"),
    "image-many-instances": Rule(
        WARNING, "cut into tiles: every instance has a mask of the image's size in memory"
    ),
}
_BOXES = {
    "box-broken": Rule(ERROR, "write the box as four finite numbers [x, y, width, height]"),
    "box-empty": Rule(WARNING, "correct or remove it: a box without area is left out"),
    "box-outside": Rule(WARNING, "correct or remove it: it lies beside the image"),
    "box-beyond": Rule(WARNING, "clip it to the image"),
    "box-xyxy": Rule(ERROR, "write [x, y, width, height]; these are two corners"),
    "box-normalised": Rule(ERROR, "multiply by the image's width and height: pixels are wanted"),
    "box-differs": Rule(WARNING, "compute the box from the mask, or correct one of the two"),
}
_MASKS = {
    "mask-type": Rule(ERROR, "write a list of polygons, or a run-length code"),
    "polygon-short": Rule(ERROR, "remove it, or give it three points at least"),
    "polygon-odd": Rule(ERROR, "write x and y of every point"),
    "polygon-numbers": Rule(ERROR, "write finite numbers"),
    "polygon-flat": Rule(WARNING, "remove it: it has no area"),
    "polygon-outside": Rule(WARNING, "clip it to the image"),
    "polygon-crossing": Rule(WARNING, "draw it anew: where it crosses itself the mask has holes"),
    "rle-size": Rule(ERROR, "encode the mask in its image's height and width"),
    "rle-damaged": Rule(ERROR, "encode the mask anew: its runs do not fill the image"),
    "rle-empty": Rule(WARNING, "remove it: the mask has no pixel"),
}
_SPLIT = {
    "split-none": Rule(INFO, "hold back images that training does not see, and give --val-data"),
    "split-overlap": Rule(WARNING, "take these images out of one of the two files"),
    "split-categories": Rule(ERROR, "use the same categories, ids and names, in both files"),
}

RULES = {**_FILE, **_CATEGORIES, **_IMAGES, **_ANNOTATIONS, **_BOXES, **_MASKS, **_SPLIT}
