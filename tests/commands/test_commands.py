"""What a user types and reads, on a store that was really trained."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.extra.grey_faces import GREY_LEVELS, Trained, write_grey_folder
from trainer.__main__ import COMMANDS, main
from trainer.store.location import open_store
from trainer.store.registry import find_version


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_an_unknown_command_is_named(capsys):
    assert main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: python -m trainer {command}" in capsys.readouterr().out


def test_runs_shows_each_run_with_its_version(trained: Trained, capsys):
    assert main(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["architecture"], row["versions"], row["status"]) for row in rows] == [
        ("resnet18", [2], "finished"),
        ("cnn", [1], "finished"),
    ]
    assert main(["runs", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "1.000" in shown
    assert "1 more" in shown


def test_compare_says_which_run_is_better_and_how_sure_that_is(trained: Trained, capsys):
    assert main(["compare", "fer2013-emotion/1", "fer2013-emotion/2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == found["both_right"] == 40
    assert found["p"] == 1.0
    assert found["verdict"].startswith("No difference in accuracy that 40 images can show")
    assert {row["metric"] for row in found["metrics"]} >= {"accuracy", "macro_recall", "log_loss", "ece"}
    assert [row["a"] for row in found["classes"]] == [1.0] * 5
    assert main(["compare", "fer2013-emotion/1", "fer2013-emotion/2"]) == 0
    assert found["verdict"] in capsys.readouterr().out


def test_without_a_store_the_user_is_told_what_makes_one(workplace, capsys):
    assert main(["runs"]) == 2
    assert "`make train` makes one" in capsys.readouterr().err


def test_promoting_moves_the_alias_and_back(trained: Trained, capsys):
    assert main(["promote", "fer2013-emotion", "2"]) == 0
    assert "version 2 is now champion; before, it was version 1" in capsys.readouterr().out
    store = open_store(create=False)
    assert find_version(store, "models:/fer2013-emotion@champion").version == 2
    assert main(["promote", "fer2013-emotion", "1", "--alias", "champion"]) == 0
    assert find_version(store, "fer2013-emotion@champion").version == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "fer2013-emotion", "9"], "fer2013-emotion has versions 1 (champion), 2"),
        (["promote", "fer2014-emotion", "1"], "no registered model 'fer2014-emotion'; there are: fer2013-emotion"),
        (["predict", "fer2013-emotion@winner", "x.png"], "fer2013-emotion has versions 1 (champion), 2"),
        (["predict", "nonsense", "x.png"], "'nonsense' names no model"),
        (["predict", "fer2013-emotion@champion"], "name at least one image"),
        (["evaluate", "fer2013-emotion@champion", "--data-dir", "/nowhere"], "/nowhere"),
        (["evaluate", "fer2013-emotion@champion", "--dataset", "fer2031"], "there is no dataset 'fer2031'"),
        (["train", "--architecture", "resnet81"], "there is no architecture 'resnet81'"),
        (["train", "--resume", "0123"], "run 0123 cannot be resumed"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_clear_message(trained: Trained, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_predict_names_each_failure_and_still_answers_the_rest(trained: Trained, tmp_path, capsys):
    good, broken, missing = tmp_path / "good.png", tmp_path / "broken.png", tmp_path / "missing.png"
    Image.fromarray(np.full((48, 48), GREY_LEVELS["sad"], np.uint8)).save(good)
    broken.write_bytes(good.read_bytes()[:60])
    assert (
        main(["predict", "fer2013-emotion/1", str(good), str(broken), str(missing), "--whole", "--json"]) == 1
    )
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [p["answer"] for p in found["predictions"]] == ["sad"]
    assert set(found["failed"]) == {str(broken), str(missing)}
    assert "broken.png" in shown.err
    assert "missing.png" in shown.err


def test_predict_prints_a_table(trained: Trained, tmp_path, capsys):
    path = tmp_path / "face.png"
    Image.fromarray(np.full((200, 150), GREY_LEVELS["happy"], np.uint8)).convert("RGB").save(path)
    assert main(["predict", "fer2013-emotion@champion", str(path), "--whole"]) == 0
    assert "happy" in capsys.readouterr().out


def test_a_class_that_the_model_does_not_know_is_refused(trained: Trained, tmp_path, capsys):
    folder = write_grey_folder(tmp_path / "faces", train=4, test=4)
    (folder / "test" / "fear").rename(folder / "test" / "contempt")
    assert main(["evaluate", "fer2013-emotion/1", "--data-dir", str(folder)]) == 2
    assert "the data have the class contempt, which the model does not know" in capsys.readouterr().err


def test_evaluate_maps_classes_by_name_where_the_data_lack_some(trained: Trained, tmp_path, capsys):
    folder = write_grey_folder(tmp_path / "faces", train=4, test=4)
    for path in (folder / "test" / "angry").iterdir():
        path.unlink()
    (folder / "test" / "angry").rmdir()
    assert main(["evaluate", "fer2013-emotion/1", "--data-dir", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["test"]
    assert found["accuracy"] == 1.0
    assert found["recall"] == [None, 1.0, 1.0, 1.0, 1.0]


def test_training_fer2013_without_data_is_an_error(workplace, capsys):
    assert main(["train", "--dataset", "fer2013"]) == 2
    error = capsys.readouterr().err
    assert "data/fer2013" in error
    assert "kaggle datasets download" in error
    assert not (workplace / "mlruns" / "artifacts").exists()
