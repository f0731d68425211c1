"""Templates are filled in wholly or not at all."""

import pytest

import model_cards
from model_cards import render


def test_fills_in(tmp_path, monkeypatch):
    (tmp_path / "note.md").write_text("$name costs $$5 and {stays}")
    monkeypatch.setattr(model_cards, "FOLDER", tmp_path)
    assert render("note", name="It") == "It costs $5 and {stays}"


@pytest.mark.parametrize("values", [{}, {"name": "It", "other": 1}])
def test_missing_and_superfluous_values(tmp_path, monkeypatch, values):
    (tmp_path / "note.md").write_text("$name")
    monkeypatch.setattr(model_cards, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="name|other"):
        render("note", **values)


def test_unknown_template():
    with pytest.raises(ValueError, match="choose one of .*dataset_card"):
        render("invitation")
