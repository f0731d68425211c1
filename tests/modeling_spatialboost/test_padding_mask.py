"""A mask that hides only the ends of sequences is left out: same loss and gradients, no (B, 1, L, L) mask."""

import pytest
import torch

import modeling_spatialboost as sb
from modeling_spatialboost.modeling_spatialboost_vlm import pads_right_only
from tests.modeling_spatialboost.test_heads_and_vlm import inputs_for, tiny, vlm  # noqa: F401


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[1, 1, 1]], True), ([[1, 1, 0], [1, 0, 0]], True), ([[0, 1, 1]], False), ([[1, 0, 1]], False)],
)
def test_only_right_padding_counts(rows, expected):
    assert pads_right_only(torch.tensor(rows)) is expected
    assert not pads_right_only(None)


def test_loss_and_gradients_are_those_with_the_mask(vlm, monkeypatch):  # noqa: F811
    model, processor = vlm
    one = inputs_for(processor, 1)
    length = one["input_ids"].shape[1]
    batch = {"input_ids": one["input_ids"].repeat(2, 1), "attention_mask": one["attention_mask"].repeat(2, 1)}
    batch["attention_mask"][1, length - 3 :] = 0
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    pixels = one["pixel_values"].repeat(2, 1, 1, 1)
    masks = []
    text = model.model.language_model
    hook = text.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    outcomes = []
    for keeps_mask in (False, True):
        if keeps_mask:
            monkeypatch.setattr(sb.modeling_spatialboost_vlm, "pads_right_only", lambda mask: False)
        model.zero_grad()
        loss = model(**batch, pixel_values=pixels, labels=labels, use_cache=False).loss
        loss.backward()
        outcomes.append((loss.detach(), model.model.multi_modal_projector.linear_1.weight.grad.clone()))
    hook.remove()
    model.zero_grad()
    assert masks[0] is None and masks[1] is batch["attention_mask"]
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-5, atol=1e-7)


def test_a_mask_stays_where_a_cache_follows(vlm):  # noqa: F811
    model, processor = vlm
    inputs = inputs_for(processor, 1)
    inputs["attention_mask"][:, -2:] = 0
    masks = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    assert masks[0] is not None
