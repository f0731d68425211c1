"""Small copies of the layouts in which image data sets are distributed."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def picture(seed=0, height=24, width=32):
    """A picture that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def write_image(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encoded(picture(seed), **options)
    path.write_bytes(content)
    return content


def rectangle(box, height, width):
    """A mask that is true in the box x0, y0, x1, y1."""
    mask = np.zeros((height, width), dtype=np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    return mask


def annotation(mask, number, **changes):
    """One mask as in the JSON files of SA-1B."""
    from pycocotools import mask as coco

    encoded_mask = coco.encode(np.asfortranarray(mask))
    rows, columns = np.nonzero(mask)
    corner = [float(columns.min(initial=0)), float(rows.min(initial=0))] if rows.size else [0.0, 0.0]
    extent = [float(np.ptp(columns)), float(np.ptp(rows))] if rows.size else [0.0, 0.0]
    return {
        "id": 500_000_000 + number,
        "segmentation": {"size": list(mask.shape), "counts": encoded_mask["counts"].decode()},
        "bbox": corner + extent,
        "area": int(mask.sum()),
        "predicted_iou": 0.97,
        "point_coords": [corner],
        "crop_box": [0.0, 0.0, float(mask.shape[1]), float(mask.shape[0])],
        "stability_score": 0.98,
    } | changes


def sa1b_annotations(number, masks, height, width):
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return {
        "image": image,
        "annotations": [annotation(mask, k) if not isinstance(mask, dict) else mask for k, mask in enumerate(masks)],
    }


def write_tar(path, members):
    """An uncompressed tar of (name, bytes), as Meta's shards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def sa1b_members(number, masks, height=60, width=80):
    """The two files of one image of SA-1B."""
    document = sa1b_annotations(number, masks, height, width)
    yield f"./sa_{number}.jpg", encoded(picture(number, height, width))
    yield f"./sa_{number}.json", json.dumps(document).encode()


def llava_record(image, *texts, name="0"):
    """A row of LLaVA's JSON files; questions and answers take turns."""
    speakers = ("human", "gpt")
    turns = [{"from": speakers[k % 2], "value": text} for k, text in enumerate(texts)]
    return {"id": name, **({"image": image} if image is not None else {}), "conversations": turns}
