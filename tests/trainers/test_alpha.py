"""Where alpha starts, and one alpha for a head or a layer."""

import pytest
import torch

from tests.commands import train
from tests.trainers.conftest import common
from trainers.alpha import group_mean
from trainers.config import StageArguments


def alphas(folder):
    from modeling_spatialboost import SpatialBoostModel

    model = SpatialBoostModel.from_pretrained(folder / "encoder")
    return [value for name, value in model.named_parameters() if name.endswith("alpha_logit")]


@pytest.mark.parametrize("sharing, num_values", [("layer", 1), ("head", 2), ("channel", 32)])
def test_as_many_values_train_as_there_are_groups(sharing, num_values, runs, data, tmp_path):
    settings = {"alpha_sharing": sharing, "alpha_start": 0.9, "alpha_learning_rate": 0.05}
    argv = ["--stage", "3", "--model", str(runs[2]), *common(data, tmp_path / sharing, **settings)]
    assert train(argv) == 0
    start = torch.logit(torch.tensor(0.9))
    for alpha in alphas(tmp_path / sharing):
        assert len(set(alpha.tolist())) == num_values
        assert 0 < (alpha - start).abs().max() < 0.2  # three steps of 0.05 at most
        if sharing == "head":
            assert alpha[:16].unique().numel() == alpha[16:].unique().numel() == 1  # heads are 16 wide


def test_the_mean_of_a_group_is_that_of_its_neighbours():
    assert group_mean(torch.tensor([1.0, 3.0, 5.0, 9.0]), 2).tolist() == [2, 2, 7, 7]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"stage": 2, "alpha_start": 0.9}, "alpha_start=0.9 has no effect"),
        ({"stage": 3, "encoder_tuning": "full", "alpha_sharing": "layer"}, "alpha_sharing='layer' has no effect"),
        ({"stage": 3, "alpha_start": 1.0}, "alpha_start=1.0: pass a share between 0 and 1"),
        ({"stage": 3, "alpha_sharing": "row"}, "alpha_sharing='row': pass one of channel, head, layer"),
    ],
)
def test_what_has_no_effect_or_is_unknown_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        StageArguments(datasets=["data"], model="stage", **settings)


def test_a_channel_that_is_there_keeps_its_alpha(runs, data, tmp_path, capsys):
    argv = ["--stage", "3", "--model", str(runs[3]), "--force", *common(data, tmp_path, alpha_start=0.9)]
    assert train(argv) == 2
    assert "has a second channel already" in capsys.readouterr().err
