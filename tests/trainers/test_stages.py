import pytest
from torch import nn

from trainers.stages import STAGES, apply_stage

PROJECTOR = {f"model.multi_modal_projector.linear_{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def boosted(runs):
    from modeling_spatialboost import SpatialBoostForConditionalGeneration

    return SpatialBoostForConditionalGeneration.from_pretrained(runs[3])


def test_stage_1_opens_the_projector(boosted):
    apply_stage(boosted, 1)
    assert trainable(boosted) == PROJECTOR


def test_stage_2_opens_projector_and_language_model(boosted):
    apply_stage(boosted, 2)
    text = {name for name, _ in boosted.named_parameters() if name.startswith(("model.language_model.", "lm_head."))}
    assert trainable(boosted) == PROJECTOR | text


def test_stage_3_opens_second_channel_and_projector(boosted):
    counts = apply_stage(boosted, STAGES[3])
    new = {name for name, _ in boosted.named_parameters() if "attn_plus" in name or "alpha_logit" in name}
    assert len([name for name in new if name.endswith("alpha_logit")]) == 2
    assert trainable(boosted) == PROJECTOR | new
    assert counts.by_group["alpha"] == 2 * 32
    assert counts.trainable == sum(p.numel() for p in boosted.parameters() if p.requires_grad)
    assert counts.frozen == sum(p.numel() for p in boosted.parameters() if not p.requires_grad)


def test_counts_are_logged(boosted, caplog):
    with caplog.at_level("INFO", logger="trainers.stages"):
        counts = apply_stage(boosted, 1)
    assert f"{counts.trainable:,} parameters train" in caplog.text
    assert f"{counts.frozen:,} are frozen" in caplog.text


def test_a_later_stage_closes_what_an_earlier_one_opened(boosted):
    apply_stage(boosted, 2)
    apply_stage(boosted, 3)
    assert not any("language_model" in name for name in trainable(boosted))


def test_unboosted_model_is_named_with_the_remedy(runs):
    from modeling_spatialboost import SpatialBoostForConditionalGeneration

    plain = SpatialBoostForConditionalGeneration.from_pretrained(runs[2])
    with pytest.raises(ValueError, match=r"stage2'.*boosted_layers=\[\].*boosted_layers: null.*spatialboost boost"):
        apply_stage(plain, 3)


def test_pattern_without_match():
    with pytest.raises(ValueError, match=r"'projector', but no parameter of 'Linear' matches"):
        apply_stage(nn.Linear(2, 2), 1)


def test_unknown_stage():
    with pytest.raises(ValueError, match="stage=4 is not a stage: pass one of 1, 2, 3"):
        apply_stage(nn.Linear(2, 2), 4)
