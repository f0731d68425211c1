"""Exact match and BLEU-1 of answers, as the public code of ScanQA and SQA3D counts them."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

# what the PTB tokenizer of pycocoevalcap leaves of an answer: words, numbers and clitics, no punctuation
_TOKEN = re.compile(r"[\w-]+?(?=n't\b)|n't\b|'\w+|\d+(?:[.,]\d+)+|\w+(?:-\w+)*")


def first_line(text: str) -> str:
    """The answer in what a model wrote: its first line, stripped and nothing more."""
    return text.strip().split("\n")[0].strip()


def answer_item(prediction: str, answers: Sequence[str]) -> np.ndarray:
    """What one answer adds to the scores; `answer_scores` makes them of many.

    Args:
        prediction: what the model said.
        answers: the references; an exact match with one of them counts, after stripping only.

    Returns:
        (4,): 1 for an exact match, the matched words, the words of the prediction, the words of the reference that
        is nearest in length (the shorter of two).
    """
    words = tokens(prediction)
    references = [tokens(answer) for answer in answers]
    most: Counter[str] = Counter()
    for reference in references:
        most |= Counter(reference)
    matched = sum((Counter(words) & most).values())
    nearest = min((len(reference) for reference in references), key=lambda length: (abs(length - len(words)), length))
    exact = prediction.strip() in [answer.strip() for answer in answers]
    return np.array([exact, matched, len(words), nearest], np.float64)


def answer_scores(items: np.ndarray) -> dict[str, float]:
    """BLEU-1 over all answers with the brevity penalty (Papineni et al., 2002), and EM@1; per cent.

    Args:
        items: (num_questions, 4) of `answer_item`.
    """
    exact, matched, words, nearest = items.sum(0)
    precision = matched / words if words else 0.0
    penalty = math.exp(1 - nearest / words) if 0 < words < nearest else 1.0
    return {"bleu1": float(100 * precision * penalty), "em1": float(100 * exact / len(items))}


def tokens(text: str) -> list[str]:
    """Lower-case words."""
    return _TOKEN.findall(text.lower())
