"""The number of conversations in a step, and what a run on several processes refuses."""

import pytest

from trainers.scale_out import accumulation_steps


@pytest.mark.parametrize(
    "per_device, processes, total, given, steps",
    [
        (8, 1, 128, None, 16),
        (8, 4, 128, None, 4),
        (8, 16, 128, None, 1),
        (8, 4, 128, 4, 4),
        (8, 4, None, 3, 3),
        (8, 4, None, None, 1),
    ],
)
def test_accumulation_follows_from_the_total(per_device, processes, total, given, steps):
    assert accumulation_steps(per_device, processes, total, given) == steps


@pytest.mark.parametrize(
    "per_device, processes, total, given, words",
    [
        (8, 3, 128, None, "total_batch_size=128 is no multiple of per_device_train_batch_size=8 times 3 proc"),
        (8, 32, 128, None, "total_batch_size=128 is no multiple"),
        (8, 2, 0, None, "total_batch_size=0 is no multiple"),
        (8, 4, 128, 2, "gradient_accumulation_steps=2 contradicts total_batch_size=128, which takes 4"),
    ],
)
def test_a_batch_that_does_not_come_out_is_refused(per_device, processes, total, given, words):
    with pytest.raises(ValueError, match=words):
        accumulation_steps(per_device, processes, total, given)
