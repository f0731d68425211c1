"""The vertices of a PLY file, binary little-endian or ASCII."""

from pathlib import Path

import numpy as np

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip


def read_vertices(file: Path) -> np.ndarray:
    """Return the vertices as a structured array (N,), one field per property; other elements are not read.

    Raises:
        ValueError: it is no such file.
    """
    content = file.read_bytes()
    head, separator, body = content.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").replace("\r", "").split("\n")
    if not separator or lines[0] != "ply":
        raise ValueError(f"{file} is no PLY file: download it again")
    elements = [line.split() for line in lines if line.startswith("element")]
    if not elements or elements[0][1] != "vertex":
        raise ValueError(f"{file} does not begin with its vertices")
    second = next((index for index, line in enumerate(lines) if line.startswith("element face")), len(lines))
    fields = [(words[2], TYPES[words[1]]) for words in map(str.split, lines[:second]) if words[:1] == ["property"]]
    layout, count = np.dtype(fields), int(elements[0][2])
    if "format binary_little_endian 1.0" in lines:
        if len(body) < count * layout.itemsize:
            raise ValueError(f"{file} is cut off: download it again")
        return np.frombuffer(body, layout, count)
    if "format ascii 1.0" in lines:
        rows = [tuple(map(float, line.split())) for line in body.decode("ascii").splitlines()[:count]]
        return np.array(rows, layout)
    raise ValueError(f"{file} is neither binary little-endian nor ASCII")
