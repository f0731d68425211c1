"""Exact nearest neighbours by cosine, in chunks that fit a device: no index, no approximation."""

import torch
from torch.nn import functional
from tqdm import tqdm

CHUNK_ROWS = 32_768
QUERY_ROWS = 2_048


def nearest(
    queries: torch.Tensor, database: torch.Tensor, count: int, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` most similar rows of the database for each query, the most similar first.

    Args:
        queries: (Q, D), any scale.
        database: (N, D), on the CPU or memory-mapped; read once, a chunk at a time.
        count: at most N are returned.
        device: where similarities are computed.

    Returns:
        (Q, K) cosines, float32, and (Q, K) row numbers, on the CPU.
    """
    normal = functional.normalize(queries.to(device).float(), dim=1)
    best = torch.empty(len(queries), 0, device=device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    starts = range(0, len(database), CHUNK_ROWS)
    for start in tqdm(starts, desc="neighbours", unit="chunk", disable=len(starts) < 2):
        chunk = functional.normalize(database[start : start + CHUNK_ROWS].to(device).float(), dim=1)
        found = [_best(part @ chunk.T, count) for part in normal.split(QUERY_ROWS)]
        candidates = torch.cat([best, torch.cat([values for values, _ in found])], 1)
        numbers = torch.cat([rows, torch.cat([indices for _, indices in found]) + start], 1)
        best, order = _best(candidates, count)
        rows = numbers.gather(1, order)
    return best.cpu(), rows.cpu()


def _best(similarities: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return similarities.topk(min(count, similarities.shape[1]), dim=1)
