"""The quick probes: exact where the truth is linear, and no better than chance where there is nothing."""

import types

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from experiments import ridge_probe
from experiments.ridge_probe import Tokens, controls, is_admitted, mean_overlap, mean_precision, ridge, score, table


def truths(number, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(number, 16, 8, generator=generator)
    classes = (features[..., 1:2] > 0).long()[..., 0]
    return features, types.SimpleNamespace(
        depth_m=3 + 0.5 * features[..., 0],
        known=torch.ones(number, 16, dtype=torch.bool),
        classes=classes,
        words=(features.mean(1)[:, :3] > 0).float(),
    )


def test_what_is_linear_is_found_and_noise_is_not():
    (known, seen), (new, unseen) = truths(200, 0), truths(100, 1)
    good = score(Tokens(known, known.mean(1)), Tokens(new, new.mean(1)), seen, unseen, 2)
    assert good["depth_rmse_m"] < 1e-3 and good["miou"] > 0.95 and good["attribute_map"] > 0.95
    noise = [torch.randn(one.shape, generator=torch.Generator().manual_seed(2)) for one in (known, new)]
    bad = score(*(Tokens(one, one.mean(1)) for one in noise), seen, unseen, 2)
    position = controls(seen, unseen, 2)
    assert bad["depth_rmse_m"] == pytest.approx(position["depth_rmse_m"], rel=0.05)
    assert bad["attribute_map"] < 0.7 and abs(bad["position_r2"]) < 0.1
    assert is_admitted(good, position | {"attribute_map": 0.4}) and not is_admitted(bad, position)
    assert "| position | 0." in table({"position": position, "good": good})


def test_a_place_that_is_written_in_the_features_is_read():
    place = torch.arange(16)
    features = torch.stack([place % 4, place // 4], -1).float().expand(50, -1, -1)
    _, seen = truths(50, 0)
    found = score(Tokens(features, features.mean(1)), Tokens(features, features.mean(1)), seen, seen, 2)
    assert found["position_r2"] == pytest.approx(1, abs=1e-3)


def test_scores_are_the_usual_ones():
    generator = np.random.default_rng(0)
    scores, truth = generator.normal(size=(40, 3)), generator.random((40, 3)) < 0.3
    expected = np.mean([average_precision_score(truth[:, k], scores[:, k]) for k in range(3)])
    assert mean_precision(torch.tensor(scores), torch.tensor(truth).float()) == pytest.approx(expected)
    guessed, real = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]])
    assert mean_overlap(guessed, real, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)  # class 2 does not occur


def test_the_strength_of_the_ridge_is_chosen_by_rows_that_it_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    train, noise = torch.randn(60, 40, generator=generator), torch.randn(60, 1, generator=generator)
    test = torch.randn(500, 40, generator=generator)
    error = ridge(train, noise, test).square().mean()
    assert error < ridge_probe._solve(train, noise, 1e-4, test).square().mean()
