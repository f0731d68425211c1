"""What a run on several processes needs beyond transformers and accelerate."""


def accumulation_steps(per_device: int, num_processes: int, total: int | None, given: int | None) -> int:
    """Batches that each process adds up before an optimizer step.

    Args:
        per_device: conversations of a batch.
        num_processes: that work on a step at the same time.
        total: conversations of a step over all processes (`total_batch_size`), None to leave it open.
        given: `gradient_accumulation_steps`, None to leave it open.

    Raises:
        ValueError: they do not agree, or the total cannot be made of whole batches.
    """
    if total is None:
        return 1 if given is None else given
    together = per_device * num_processes
    steps, rest = divmod(total, together)
    if rest or steps < 1:
        raise ValueError(
            f"total_batch_size={total} is no multiple of per_device_train_batch_size={per_device} times "
            f"{num_processes} processes, {together}: change one of the three."
        )
    if given not in (None, steps):
        raise ValueError(
            f"gradient_accumulation_steps={given} contradicts total_batch_size={total}, which takes {steps} with "
            f"per_device_train_batch_size={per_device} on {num_processes} processes: remove one of both."
        )
    return steps
