"""The command itself: verbs, exit codes, and which errors are the user's."""

import subprocess
import sys

import pytest

import spatialboost_cli


def test_help_lists_every_verb_and_each_verb_has_help(capsys):
    assert spatialboost_cli.main(["--help"]) == 0
    listing = capsys.readouterr().out
    for verb in spatialboost_cli.VERBS:
        assert f"\n  {verb}" in listing
        with pytest.raises(SystemExit) as end:
            spatialboost_cli.main([verb, "--help"])
        assert end.value.code == 0 and f"spatialboost {verb}" in capsys.readouterr().out


def test_help_loads_no_heavy_library():
    script = "import sys, spatialboost_cli; spatialboost_cli.main(['--help']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("False")


@pytest.mark.parametrize("arguments", [[], ["fly"]])
def test_no_verb_and_an_unknown_verb_are_refused(arguments, capsys):
    assert spatialboost_cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert "quickstart" in printed.out + printed.err


def test_bad_arguments_end_with_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        spatialboost_cli.main(["build", "--no-such-argument"])
    assert end.value.code == 2


def test_a_users_mistake_is_one_sentence_and_ours_keeps_its_traceback(capsys, monkeypatch, tmp_path):
    mistakes = {
        "boost": [str(tmp_path), "--output", str(tmp_path / "out")],
        "build": ["--source", "rgbd", "--input", str(tmp_path / "absent"), "--output", str(tmp_path / "out")],
        "train": ["--stage", "4", "--datasets", "x", "--output_dir", str(tmp_path / "out")],
    }
    for verb, arguments in mistakes.items():
        assert spatialboost_cli.main([verb, *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith(f"spatialboost {verb}: error: ") and "Traceback" not in "".join(lines)

    def fails_in_a_library(arguments):
        int("not a number")
        raise AssertionError

    monkeypatch.setattr("trainers.boost.main", fails_in_a_library)
    with pytest.raises(ValueError, match="invalid literal"):
        spatialboost_cli.main(["boost"])


def test_a_file_that_cannot_be_written_is_the_users_to_mend(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("trainers.boost.main", lambda arguments: (tmp_path / "absent" / "file").write_text("x"))
    assert spatialboost_cli.main(["boost"]) == 2
    assert "No such file or directory" in capsys.readouterr().err
