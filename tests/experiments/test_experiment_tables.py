"""Every table from measurements that are made up: intervals, gate, claims, Markdown, picture; and pieces done once."""

import json
import shutil

import numpy as np
import pytest

from experiments import aims, findings, table_report, workshop
from experiments.arms import ARMS, CONTROLS
from experiments.measure import Reading, applies, reading_of
from experiments.pieces import MARKER, Ledger, OutOfBudget, Piece, run_verb
from experiments.presets import PRACTICES, PRESETS, READER_RUNS
from experiments.table_report import draw, render_markdown
from experiments.tables import CALLS, MEASURES, TABLES
from trainers import sft

NUM_ITEMS = 40
COLUMNS = {"depth": 3, "depth_dpt": 3, "segmentation": 6, "retrieval": 3, "questions": 5, "reading": 5}


def items_of(measure, quality, seed):
    """Per-item results of the shape that the task has, better with `quality`."""
    random = np.random.default_rng(seed)
    if measure.startswith("depth"):
        return 1 - quality + 0.05 * random.random((NUM_ITEMS, 3))
    if measure == "segmentation":
        return np.concatenate([np.full((NUM_ITEMS, 2), 10 * quality), np.full((NUM_ITEMS, 4), 10.0)], axis=1)
    if measure in ("questions", "reading"):  # kind, form, right, error, readable
        right = random.random(NUM_ITEMS) < quality
        return np.stack([np.zeros(NUM_ITEMS), np.zeros(NUM_ITEMS), right, 1 - right, np.ones(NUM_ITEMS)], axis=1)
    return (random.random((NUM_ITEMS, COLUMNS.get(measure, 1))) < quality).astype(float)


def write_measurements(folder, seed, quality_of):
    """What `measure_arm` leaves: results.json and items.npz of every call and arm."""
    for call in CALLS:
        for arm in ARMS.values():
            if arm.name == "base" or not applies(call, arm):
                continue
            tasks, arrays = {}, {}
            for name, measure in MEASURES.items():
                if measure.call != call:
                    continue
                values = {}
                for side, one in (("base", "base"), ("boosted", arm.name)):
                    items = items_of(name, quality_of(one), seed)
                    arrays[f"{measure.entry}|{side}|0"] = items
                    values[side] = {"mean": findings._aggregate(measure)(items)[measure.metric]}
                controls = {"constant": 20.0, "position_only": 0.7}
                tasks[measure.entry] = {"metrics": {measure.metric: values | {"controls": controls}}}
            place = folder / "measures" / call / arm.name
            place.mkdir(parents=True)
            (place / "results.json").write_text(json.dumps({"tasks": tasks}))
            np.savez_compressed(place / "items.npz", **arrays)


QUALITY = {"base": 0.5, "language": 0.75, "shuffled_answers": 0.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {seed: tmp_path_factory.mktemp(f"seed{seed}") for seed in (0, 1)}
    for seed, folder in made.items():
        write_measurements(folder, seed, lambda name: QUALITY.get(name, 0.6))
    return made


def test_rows_and_columns_exist_and_every_arm_is_used():
    used = {arm for table in TABLES.values() for arm in table.all_arms}
    assert used == ARMS.keys() and set(CONTROLS) <= ARMS.keys()
    for table in TABLES.values():
        assert set(table.measures) <= MEASURES.keys() and table.reference in table.all_arms
        assert all(arm in table.all_arms and len(row) == len(table.paper_columns) for arm, row in table.paper)
    assert {measure.call for measure in MEASURES.values()} == CALLS.keys()


def test_a_table_tells_of_the_model_that_its_own_arms_start_from(tmp_path):
    read = {name: reading_of(tmp_path, table.taught).name for name, table in TABLES.items()}
    others = {"table9": "start_depth", "teaching": "start_plain_depth_reader"}
    assert read == dict.fromkeys(TABLES, "start_plain") | others


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_all_its_rows_with_intervals_and_a_picture(name, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "RESAMPLES", 40)
    table = TABLES[name]
    found = findings.findings_of(name, folders)
    found |= {"command": "-", "preset": "cpu", "commits": ["abc"], "hardware": "CPU", "minutes": 1.0}
    found["aims"] = aims.aims_of(found)
    json.dumps(found, allow_nan=False)
    assert list(found["arms"]) == list(table.all_arms) and found["gate"]["admitted"] is True
    for arm, row in found["arms"].items():
        expected = {m for m in table.measures if applies(MEASURES[m].call, ARMS[arm]) or arm == "base"}
        assert row["measures"].keys() == expected
        for cell in row["measures"].values():
            assert len(cell["per_seed"]) == 2
            if arm != table.reference:
                low, high = cell["difference"]["interval"]
                assert low <= cell["difference"]["mean"] + 1e-9 and cell["difference"]["mean"] <= high + 1e-9
    text = render_markdown(found)
    for arm in table.all_arms:
        assert text.count(f" {ARMS[arm].label}") + text.count(f"control: {ARMS[arm].label}") >= 1
    assert all(MEASURES[measure].label in text for measure in table.measures) and "BASE TOO WEAK" not in text
    draw(found, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert all(aim["met"] is not None for aim in found["aims"])


def test_a_deviation_that_is_rounding_only_is_none():
    cell = {"mean": 25.89, "deviation": 4.4e-15}
    told = [table_report._value(cell | {"deviation": deviation}) for deviation in (4.4e-15, 0.52, None)]
    assert told == ["25.89 ± 0", "25.89 ± 0.52", "25.89"]


def test_claims_are_judged_by_what_was_found(folders, monkeypatch):
    monkeypatch.setattr(findings, "RESAMPLES", 40)
    main = {aim["claim"]: aim["met"] for aim in aims.aims_of(findings.findings_of("main", folders))}
    assert all(main.values()) and len(main) == 4
    arms = findings.findings_of("table6", folders)["arms"]
    assert aims.language_beats_every_head(arms).met is True
    arms["linear_depth"], arms["language"] = arms["language"], arms["linear_depth"]
    assert aims.language_beats_every_head(arms).met is False
    del arms["mask_decoder"]["measures"]["depth"]
    assert aims.language_beats_every_head(arms).met is None


@pytest.mark.parametrize(
    ("language", "own", "met", "told"),
    [
        ([0.8, 0.9], [0.9, 0.94], True, "on the images +2.0 %; so in 2 of 2 seeds"),
        ([0.8, 0.9], [0.9, 0.8], False, "so in 1 of 2 seeds"),  # as much in the mean, and in one seed more
        ([1.1, 1.1], [1.2, 1.2], False, "so in 0 of 2 seeds"),  # less bad than another is no help
    ],
)
def test_a_ranking_tells_in_how_many_seeds_it_holds(language, own, met, told):
    same = {"per_seed": [5.0, 5.0]}
    depths = {"base": [1.0, 1.0], "language": language, "own_objective": own}
    arms = {
        name: {"label": ARMS[name].label, "measures": dict.fromkeys(aims.FAMILIES, same) | {"depth": {"per_seed": of}}}
        for name, of in depths.items()
    }
    aim = aims.own_objective_is_flat(arms)
    assert aim.met is met and told in aim.found
    arms["base"]["measures"]["segmentation"] = {"per_seed": [0.0, 5.0]}
    assert aims.own_objective_is_flat(arms).met is None  # no share of nothing


@pytest.mark.parametrize(
    ("depth_base", "boosted", "shuffled", "met"),
    [
        (0.6, 0.8, 0.6, True),
        (0.6, 0.8, 0.8, False),  # any training helps it
        (0.6, 0.55, 0.5, False),  # less harm than shuffled answers do is no gain
        (0.4, 0.8, 0.5, None),  # it knows less of depth than the plain base
    ],
)
def test_a_base_that_knows_depth_gains_from_language_only(monkeypatch, tmp_path, depth_base, boosted, shuffled, met):
    monkeypatch.setattr(findings, "RESAMPLES", 40)
    quality = {"base": 0.5, "depth_base": depth_base, "depth_language": boosted, "depth_shuffled": shuffled}
    write_measurements(tmp_path, 0, lambda arm: quality.get(arm, 0.6))
    aim = next(aim for aim in aims.aims_of(findings.findings_of("table9", {0: tmp_path})))
    assert aim["met"] is met and ("cannot be told" in aim["found"]) == (met is None)


def test_language_teaches_depth_only_where_wrong_answers_do_not(monkeypatch, tmp_path):
    monkeypatch.setattr(findings, "RESAMPLES", 40)

    def judged(name, **quality):
        write_measurements(
            tmp_path / name, 0, lambda arm: {"base": 0.5, "dialogues_shuffled": 0.5, **quality}.get(arm, 0.6)
        )
        shutil.rmtree(tmp_path / name / "measures/probes/language")  # which this table does not have
        found = findings.findings_of("teaching", {0: tmp_path / name})
        assert found["arms"]["base"]["measures"]["depth"]["mean"] and found["gate"]["admitted"] is not None
        return [aim["met"] for aim in aims.aims_of(found)]

    assert judged("taught", questions=0.8, questions_shuffled=0.5, dialogues=0.7) == [True, True]
    assert judged("more training", questions=0.8, questions_shuffled=0.8, dialogues=0.5) == [False, False]
    assert judged("harm undone", questions=0.45, questions_shuffled=0.4, dialogues=0.45) == [False, False]


def test_a_weak_base_is_labelled(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "RESAMPLES", 10)
    write_measurements(tmp_path, 0, lambda name: 0.2)  # depth is worse than by position alone, classes by chance
    found = findings.findings_of("table8", {0: tmp_path})
    found |= {"command": "-", "preset": "cpu", "commits": ["a", "b"], "hardware": "CPU", "minutes": 1.0, "aims": []}
    assert found["gate"]["admitted"] is False and found["gate"]["reasons"][0].endswith("failed")
    assert "BASE TOO WEAK" in render_markdown(found)


def test_an_interval_is_of_items_and_of_seeds():
    measure = MEASURES["classification"]

    def readings(*shares):
        rows = [(np.arange(NUM_ITEMS) < share * NUM_ITEMS).astype(float)[:, None] for share in shares]
        return {seed: Reading([row], {}, {}) for seed, row in enumerate(rows)}

    assert findings.interval(measure, readings(0.5, 0.5), readings(0.5, 0.5)) == [0, 0]
    low, high = findings.interval(measure, readings(0.25), readings(0.75))
    assert 25 < low < 50 < high < 75
    # two seeds, one of which gains and one of which loses: their spread shows, although every item is the same
    low, high = findings.interval(measure, readings(0.0, 1.0), readings(1.0, 0.0))
    assert (low, high) == (-100, 100)


def test_a_piece_is_done_once_and_never_mistaken_for_another(tmp_path):
    calls = []
    ledger = Ledger()
    world = ledger.do(tmp_path / "world", "make the world", [], lambda: calls.append("world"))
    first = ledger.do(tmp_path / "a", "train", [world], lambda: calls.append("a"))
    again = Ledger(budget_minutes=0)  # no minute left for anything new
    assert again.do(tmp_path / "a", "train", [world], lambda: calls.append("a")) == first
    assert calls == ["world", "a"] and list(again.used) == [str(tmp_path / "a")]
    with pytest.raises(OutOfBudget):
        again.do(tmp_path / "b", "train", [world], lambda: calls.append("b"))
    for command, inputs in (("train more", [world]), ("train", [Piece(tmp_path, "another world")])):
        with pytest.raises(ValueError, match="was made by another command or from other models"):
            Ledger().do(tmp_path / "a", command, inputs, lambda: calls.append("a"))
    assert calls == ["world", "a"] and not (tmp_path / "b").exists()


def test_work_that_fails_leaves_no_marker(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Ledger().do(tmp_path, "divide", [], lambda: 1 / 0)
    assert not (tmp_path / MARKER).exists()


def test_a_training_that_a_signal_stops_goes_on_in_the_next_run(tmp_path):
    def run(code, words=()):
        return Ledger().do(tmp_path, "train", [], lambda: run_verb(lambda argv: code, list(words)))

    with pytest.raises(SystemExit) as end:
        run(143)  # what the trainers return after they have saved a checkpoint
    assert end.value.code == 143 and not (tmp_path / MARKER).exists()
    with pytest.raises(ValueError, match="the command above stopped"):
        run(2)
    assert run(0).folder == tmp_path and (tmp_path / MARKER).is_file()


def test_every_arm_is_a_command_that_the_trainers_take(tmp_path, monkeypatch):
    """All that a run says is parsed by the product's own parsers; nothing is trained."""
    said, preset = {}, PRESETS["gpu"]

    def parsed(argv):
        parser = sft.make_parser
        if sft.objective_of(argv) != "language":
            from trainers.baselines.run import make_parser as parser
        arguments, training = parser().parse_args_and_config(argv)
        said[training.output_dir] = arguments, training
        return 0

    monkeypatch.setattr(sft, "main", parsed)
    monkeypatch.setattr(workshop, "make_variant", lambda data, folder, *rest: folder)
    monkeypatch.setattr(workshop, "num_rows", lambda folder: 80)
    monkeypatch.setattr(workshop, "exchange_encoder", lambda *arguments: None)
    monkeypatch.setattr(workshop, "train_language_model", lambda *arguments: None)
    monkeypatch.setattr(workshop.Workshop, "base", lambda self, kind: Piece(tmp_path / f"base_{kind}", kind))
    monkeypatch.setattr(workshop.Workshop, "_upper_half", lambda self, arm: range(3, 6))
    data = tmp_path / "data"
    for config in ("alignment", "grounding", "multi_view_vqa", "single_view", "multi_view"):
        (data / config).mkdir(parents=True)
    world = workshop.World(data, tmp_path / "objects", tmp_path / "places")
    monkeypatch.setattr(workshop, "make_world", lambda *arguments: world)
    shop = workshop.Workshop(tmp_path / "root", preset, 0, Ledger())
    for arm in ARMS.values():
        shop.arm(arm)
    shop.reader(ARMS["point_decoder"])
    stage2, settings = said[str(tmp_path / "root/seed0/plain/stage2")]
    assert stage2.datasets[-1] == f"{data}:multi_view:train[:10%]" and len(stage2.datasets) == 6
    (practice, taken), (turned, _) = (said[str(tmp_path / f"root/seed0/plain/{run}")] for run in PRACTICES)
    assert practice.datasets == [f"{tmp_path / 'root/variants/pointing'}:grounding:train"]
    assert turned.model.endswith("plain/practice") and stage2.model.endswith("plain/practice_turned")
    assert taken.max_steps == preset.stage_steps[1] and settings.max_steps == preset.stage_steps[3]
    reader = {run: said[str(tmp_path / f"root/seed0/plain/{run}")] for run in READER_RUNS}
    assert [one.model.rsplit("/", 1)[1] for one, _ in reader.values()] == [PRACTICES[-1], *list(READER_RUNS)[:-1]]
    assert [settings.max_steps for _, settings in reader.values()] == list(preset.reader_steps)
    held = reader["fitting"][1]
    assert held.learning_rate < 1e-6 < 1e-3 < held.projector_learning_rate
    trained = {name.rsplit("/arms/")[1]: both for name, both in said.items() if "/arms/" in name}
    assert trained.keys() == {arm.name for arm in ARMS.values() if arm.learns_from}
    steps = {training.max_steps for _, training in trained.values()}
    batches = {training.per_device_train_batch_size for _, training in trained.values()}
    assert (steps, batches) == ({preset.stage_steps[-1]}, {preset.batch_size})  # equal budgets
    starts = {name: one.model.rsplit("/", 1)[1] for name, (one, _) in trained.items() if one.objective == "language"}
    assert {name for name, start in starts.items() if start == "stage2"} == {"questions_plain"}
    assert set(starts.values()) == {"fitting", "stage2"} and PRESETS["gpu"].stage3_start == "depth_reader"
    assert PRESETS["cpu"].stage3_start == "stage2"
    assert (
        trained["questions_plain"][0].datasets == trained["questions"][0].datasets != trained["dialogues"][0].datasets
    )
    assert trained["data_25"][0].datasets[0].endswith(":single_view:train[:20]")
    assert "variants/shuffled_answers:multi_view" in trained["shuffled_answers"][0].datasets[1]
    assert trained["upper_half"][0].boosted_layers == [3, 4, 5] and trained["alpha_head"][0].alpha_sharing == "head"
    assert trained["lora_fast"][1].learning_rate == pytest.approx(3 * trained["lora"][1].learning_rate)
    assert trained["depth_language"][0].model.endswith("depth/fitting")
    reader = said[str(tmp_path / "root/seed0/readers/point_decoder/stage2")][0]
    assert reader.model == str(tmp_path / "root/seed0/readers/point_decoder/start") and reader.stage == 2
    assert reader.datasets == [*stage2.datasets, f"{data}:single_view:train"]
    shipped = workshop.Workshop(tmp_path / "shipped", PRESETS["hour"], 0, Ledger())
    monkeypatch.setattr(shipped, "_asset", lambda name: Piece(tmp_path / name, name))
    assert shipped.start_of(ARMS["language"]).folder == tmp_path / "depth_reader"
    fitted = shipped.start_of(ARMS["depth_language"]).folder  # another encoder: its projector meets rooms again
    assert fitted == tmp_path / "shipped/seed0/depth/fitting" and len(said) == len({*said, str(fitted)})
    assert said[str(fitted)][0].model.endswith("depth/reader_start")


def test_a_base_with_depth_goes_on_from_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop, "make_world", lambda *arguments: workshop.World(tmp_path, tmp_path, tmp_path))
    monkeypatch.setattr(workshop, "train_base_encoder", lambda *words: trained.append(words))
    for preset, start, steps in (("hour", tmp_path / "asset", 800), ("gpu", None, 4000)):
        trained = []
        shop = workshop.Workshop(tmp_path / preset, PRESETS[preset], 0, Ledger())
        monkeypatch.setattr(shop, "_asset", lambda name, start=start: Piece(start, name) if start else None)
        shop.base("depth")
        assert trained[0][3] == steps and trained[0][6].endswith("+depth") and trained[0][8] == start
        record = json.loads((tmp_path / preset / "seed0/base_depth" / MARKER).read_text())
        assert (" --start " in record["command"]) == bool(start)
