"""What the texts of a Parquet file hold that nobody else should see, in any column however deep."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH_ROWS = 1024


def text_findings(path: Path, patterns: dict[str, re.Pattern[str]]) -> Iterator[tuple[str, str, str]]:
    """(column, pattern's name, what was found) for the first finding of each pattern in each column.

    Pictures and numbers are not read. What stands in the file's own metadata has the column "metadata".

    Raises:
        pyarrow.lib.ArrowException, OSError: the file cannot be read.
    """
    from pyarrow import parquet

    told: set[tuple[str, str]] = set()
    with parquet.ParquetFile(path) as file:
        leaves = [file.schema.column(number) for number in range(len(file.schema.names))]
        columns = [one.path for one in leaves if one.physical_type == "BYTE_ARRAY" and one.logical_type.type != "NONE"]
        texts = [("metadata", str(file.schema_arrow.metadata or ""))]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            texts += [(name, text) for name, array in zip(batch.schema.names, batch.columns) for text in _texts(array)]
            for column, text in texts:
                for what, pattern in patterns.items():
                    if (column, what) not in told and (found := pattern.search(text)):
                        told.add((column, what))
                        yield column, what, found[0]
            texts = []


def _texts(array: Any) -> Iterator[str]:
    """The strings of an Arrow array at any depth, each once, joined by line."""
    from pyarrow import types

    if types.is_nested(array.type):
        inner = array.flatten()
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _texts(one)
    else:
        yield "\n".join(str(text) for text in array.unique().to_pylist() if text)
