"""What a user types and reads, on a store that was really trained."""

import errno
import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from dashboard.__main__ import OVERWRITTEN
from dashboard.__main__ import main as dashboard_main
from tests.extra.drawn_photos import encoded, scene
from tests.extra.grey_faces import GREY_LEVELS, Trained, write_grey_folder
from tests.extra.own_store import own_store
from trainer.__main__ import COMMANDS, main
from trainer.commands.predict import print_table
from trainer.commands.quickstart import usual_epochs
from trainer.commands.report import difference
from trainer.commands.ui import free_port
from trainer.config import recipe_defaults
from trainer.contract import Tag
from trainer.evaluation.gates import GATES_FILE
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.registry import find_version, remove_alias, set_alias
from trainer.store.writer import RunWriter


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_an_unknown_command_is_named(capsys):
    assert main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["70000", "0", "-1"])
def test_what_is_no_port_is_told_in_a_line_by_both_servers(monkeypatch, capsys, port):
    monkeypatch.setattr("sys.argv", ["dashboard", "--port", port])
    for name, value in OVERWRITTEN.items():  # else it would begin this process anew
        monkeypatch.setenv(name, value)
    for run in (lambda: main(["ui", "--port", port]), dashboard_main):
        assert run() == 2
        assert capsys.readouterr().err == f"error: --port {port}: must lie between 1 and 65535\n"


def test_ctrl_c_ends_the_dashboard_without_a_traceback_before_it_is_up(monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tyro.cli", interrupt)
    for name, value in OVERWRITTEN.items():
        monkeypatch.setenv(name, value)
    assert dashboard_main() == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_port_that_the_user_may_not_have_is_not_called_in_use(monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(ValueError, match=r"not listen on port 80 \(Permission denied\)"):
        free_port(80)


def test_ports_are_looked_for_up_to_the_last_one(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(ValueError, match="ports 65530 to 65535 are in use"):
        free_port(65_530)


@pytest.mark.parametrize("command", ["sweep", "quickstart", "audit"])
def test_torchrun_is_refused_where_one_process_works_alone(command, capsys, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert main([command]) == 2
        assert (f"error: {command} is one process" in capsys.readouterr().err) == (rank == "0")


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
        ("resnet18", ["fer2013-emotion/2"], "finished"),
        ("cnn", ["fer2013-emotion/1"], "finished"),
    ]
    assert main(["runs", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "1.000" in shown
    assert "1 more" in shown


def test_a_dataset_without_runs_is_told_and_a_limit_below_none_refused(stocked, capsys):
    assert main(["runs", "--dataset", "fer2013"]) == 0
    assert "There are no runs yet" in capsys.readouterr().out
    RunWriter.create(open_store(), "faces", "mine", {})
    assert main(["runs", "--dataset", "fer2013"]) == 0
    assert capsys.readouterr().out == "There are no runs on fer2013.\n"
    assert main(["runs", "--limit", "-1"]) == 2
    assert "--limit -1: must be 0 or more" in capsys.readouterr().err


def test_a_name_with_brackets_is_shown_as_it_is(stocked, capsys):
    store = open_store()
    RunWriter.create(store, "faces", "cnn [best] [/old]", {})
    assert main(["runs"]) == 0
    assert "cnn [best] [/old]" in capsys.readouterr().out


def test_a_run_whose_checkpoints_cannot_be_written_does_not_seem_to_go_on(stocked, capsys):
    faces = write_grey_folder(stocked / "faces")
    store = open_store()
    store.checkpoints.write_text("in the way")
    assert (
        main(["train", "--dataset", "fer2013", "--data-dir", str(faces), "--blocks", "8 8", "--epochs", "1"])
        == 2
    )
    assert "checkpoints" in capsys.readouterr().err
    [run] = store.client().search_runs([store.experiment_id("fer2013")])
    assert run.info.status == "FAILED"


def test_a_store_that_is_named_twice_is_told_without_its_password(capsys):
    assert main(["migrate", "--from", "http://a:topsecret@h", "--to", "http://a:topsecret@h"]) == 2
    error = capsys.readouterr().err
    assert "both stores are http://h" in error
    assert "topsecret" not in error


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


@pytest.fixture
def strict(trained: Trained):
    """A gate that no model passes; afterwards it is gone, and version 1 is champion as before."""
    gates = trained.root / GATES_FILE
    gates.write_text("maximum_latency_ms = 0.0001\n")
    store = open_store(create=False)
    yield store
    gates.unlink()
    set_alias(store, "fer2013-emotion", 1, "champion")


def test_a_check_tells_every_gates_verdict_and_moves_nothing(strict, capsys):
    assert main(["promote", "fer2013-emotion", "2", "--check"]) == 1
    shown = capsys.readouterr().out
    assert "fer2013-emotion version 2, judged against version 1" in shown
    assert re.search(r"same test set +│ +yes +│ +the same 40 images", shown)
    assert re.search(r"latency +│ +no +│", shown)
    assert find_version(strict, "fer2013-emotion@champion").version == 1
    (Path(GATES_FILE)).write_text("")
    assert main(["promote", "fer2013-emotion", "2", "--check"]) == 0


def test_a_promotion_against_a_gate_needs_a_reason_which_is_kept(strict, capsys):
    assert main(["promote", "fer2013-emotion", "2"]) == 2
    assert "not promoted: latency is not passed; with --reason" in capsys.readouterr().err
    assert find_version(strict, "fer2013-emotion@champion").version == 1
    assert main(["promote", "fer2013-emotion", "2", "--reason", "the demo needs\n colour"]) == 0
    found = find_version(strict, "fer2013-emotion@champion")
    assert found.version == 2
    assert found.tags[Tag.PROMOTION_REASON] == "the demo needs colour"
    assert found.tags[Tag.PROMOTION_GATES] == "not passed: latency"
    assert found.tags[Tag.PROMOTED_OVER] == "1"
    assert found.tags[Tag.PROMOTED_BY]
    when = datetime.fromisoformat(found.tags[Tag.PROMOTED_AT])
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert main(["promote", "fer2013-emotion", "2"]) == 0
    assert "version 2 is champion already" in capsys.readouterr().out


def test_the_champion_of_today_is_judged_against_the_one_that_it_followed(
    trained: Trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    store = own_store(trained)
    for number in (1, 2):  # promotions by other tests
        tags = find_version(store, f"fer2013-emotion/{number}").tags
        for key in {Tag.PROMOTED_OVER, Tag.PROMOTED_AT} & set(tags):
            store.client().delete_model_version_tag("fer2013-emotion", str(number), key)
    assert main(["promote", "fer2013-emotion", "1", "--check"]) == 0  # the first one followed nobody
    assert main(["promote", "fer2013-emotion", "2"]) == 0
    capsys.readouterr()
    assert main(["promote", "fer2013-emotion", "2", "--check"]) == 0
    shown = capsys.readouterr().out
    assert "fer2013-emotion version 2, judged against version 1" in shown
    assert re.search(r"same test set +│ +yes +│ +the same 40 images", shown)
    set_alias(store, "fer2013-emotion", 1, "champion")  # as in MLflow, after that promotion
    assert main(["promote", "fer2013-emotion", "1", "--check"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "fer2013-emotion version 1, judged by itself" in shown
    assert shown.count("nobody knows which champion") == 3


def test_a_model_that_is_named_by_its_address_is_judged_against_the_champion_as_well(strict, capsys):
    assert main(["promote", "models:/fer2013-emotion", "2", "--check"]) == 1
    assert "fer2013-emotion version 2, judged against version 1" in capsys.readouterr().out
    assert main(["promote", "models:/fer2013-emotion", "1"]) == 0
    assert "version 1 is champion already" in capsys.readouterr().out


def test_an_alias_that_only_looks_like_champion_is_refused(strict, capsys):
    assert main(["promote", "fer2013-emotion", "2", "--alias", "Champion"]) == 2
    assert "--alias Champion: write champion" in capsys.readouterr().err


def test_another_alias_is_moved_without_gates(strict, capsys):
    assert main(["promote", "models:/fer2013-emotion", "2", "--alias", "demo"]) == 0
    assert "version 2 is now demo." in capsys.readouterr().out
    remove_alias(strict, "fer2013-emotion", "demo")


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
        # Before the images, which are not there, are looked for:
        (["evaluate", "fer2013-emotion/1", "--data-dir", "/x", "--groups", "/y"], "--groups /y cannot be read: No"),
        (["train", "--teacher", "nope/1"], "there is no registered model 'nope'"),
        (["train", "--architecture", "resnet18", "--pretrained", "/nope"], "--pretrained /nope: there is no such file"),
        (["quickstart", "--seed", "-1"], "--seed -1: must lie between 0 and 2147483647"),
        (["data", "faces", "--data-dir", "/dev/null"], "error: /dev/null is neither a folder nor a file"),
        (["promote", "fer2013-emotion", "9" * 20], "2147483647 is the highest number that a version can have"),
        (["migrate", "--to", "x"], "the store's address is 'x'; it must be"),
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


FACES = [(60, 60), (560, 300)]


@pytest.fixture
def photos(tmp_path):
    """Two drawn photos, one in a folder below, with three faces together, and one without a face."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / "two.jpg").write_bytes(encoded(scene(FACES)))
    (folder / "below" / "one.png").write_bytes(encoded(scene(FACES[:1]), "PNG"))
    (folder / "sky.png").write_bytes(encoded(Image.new("RGB", (300, 200), "skyblue"), "PNG"))
    return folder


def test_predict_finds_the_faces_in_a_folder_for_several_models(trained: Trained, photos, capsys):
    models = "fer2013-emotion/1,fer2013-emotion@champion,fer2013-emotion/2"
    assert main(["predict", models, str(photos), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == ["fer2013-emotion/1", "fer2013-emotion/2"]
    assert found["failed"] == {
        str(photos / "sky.png"): "no face was found; --whole takes the whole image as the face"
    }
    keys = [(Path(row["photo"]).name, row["face"], row["model"][-1]) for row in found["predictions"]]
    assert keys == [(n, f, m) for n, f in (("one.png", 1), ("two.jpg", 1), ("two.jpg", 2)) for m in "12"]
    for row in found["predictions"]:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert row["sure"] == (row["probability"] >= 0.5)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_predict_writes_what_it_found(trained: Trained, photos, tmp_path, capsys, suffix):
    output = tmp_path / "new" / f"answers{suffix}"
    pattern = str(photos / "**" / "*.[jp][pn]g")
    assert (
        main(
            [
                "predict",
                "fer2013-emotion/1",
                pattern,
                "--output",
                str(output),
                "--annotate",
                str(tmp_path / "seen"),
            ]
        )
        == 1
    )
    if suffix == ".json":
        rows = json.loads(output.read_text())["predictions"]
        faces = [row["face"] for row in rows]
    else:
        faces = list((pd.read_csv if suffix == ".csv" else pd.read_parquet)(output)["face"])
    assert faces == [1, 1, 2]
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"one.jpg", "two.jpg"}
    shown = capsys.readouterr().out
    if suffix == ".json":
        answers = [row["answer"] for row in rows if row["sure"]]
        assert all(answer in shown for answer in answers)
        assert ("not sure" in shown) == (len(answers) < 3)


def test_predict_draws_over_its_own_pictures(trained: Trained, photos, tmp_path):
    (photos / "below" / "two.jpg").write_bytes((photos / "two.jpg").read_bytes())  # two of one name
    command = ["predict", "fer2013-emotion/1", str(photos), "--annotate", str(tmp_path / "seen")]
    for _ in range(2):
        main(command)
        assert {path.name for path in (tmp_path / "seen").iterdir()} == {"one.jpg", "two.jpg", "two-2.jpg"}


def test_predict_never_draws_over_a_photo(trained: Trained, photos):
    Image.open(photos / "two.jpg").save(photos / "one.png")
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    main(["predict", "fer2013-emotion/1", str(photos), "--annotate", str(photos)])
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in photos.iterdir() if path not in before} >= {"one-2.jpg", "two-2.jpg"}


def test_predict_never_draws_over_a_photo_that_it_is_not_asked_about(trained: Trained, photos):
    Image.open(photos / "two.jpg").save(photos / "two.png")
    (photos / "two-2.jpg").symlink_to(photos / "two.jpg")
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    assert main(["predict", "fer2013-emotion/1", str(photos / "two.png"), "--annotate", str(photos)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in photos.iterdir() if path not in before} == {"two-3.jpg", "below"}


def test_pictures_among_the_photos_are_not_taken_for_photos(trained: Trained, photos, capsys):
    command = ["predict", "fer2013-emotion/1", str(photos), "--annotate", str(photos / "seen"), "--json"]
    found = []
    for _ in range(2):
        main(command)
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert {path.name for path in (photos / "seen").iterdir()} == {"one.jpg", "two.jpg"}
    command[2] = str(photos / "seen")
    assert main(command) == 2
    assert "only pictures" in capsys.readouterr().err


def test_answers_are_in_the_file_before_they_are_shown(trained: Trained, photos, tmp_path, monkeypatch):
    def gone(*_: object) -> None:
        raise SystemExit(1)  # as Rich does where a pager was closed

    output = tmp_path / "answers.csv"
    monkeypatch.setattr("trainer.commands.predict.print_table", gone)
    with pytest.raises(SystemExit):
        main(["predict", "fer2013-emotion/1", str(photos / "two.jpg"), "--output", str(output)])
    assert len(pd.read_csv(output)) == 2


def test_the_table_has_room_for_answers_beside_long_names_and_moves_no_cursor(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = {
        "photo": "a.jpg",
        "face": 1,
        "answer": "sur\x1b[2Jprise",
        "probability": 0.9,
        "sure": True,
        "flags": [],
    }
    answer["probabilities"] = {"sur\x1b[2Jprise": 0.9, "happy": 0.06, "sad": 0.04}
    print_table([answer | {"model": f"/a/folder/of/somebody/with/a/long/name/{n}"} for n in (1, 2)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "sur�[2J" in shown


def test_a_store_that_fails_is_told_in_one_line(trained: Trained, capsys, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MlflowException("the disk of http://token@host is full\nTraceback …")

    monkeypatch.setattr("trainer.store.registry.find_version", fail)
    assert main(["promote", "fer2013-emotion", "2"]) == 2
    assert capsys.readouterr().err == "error: the tracking store failed: the disk of http://host is full\n"


def test_models_may_be_named_with_blanks_after_the_commas(trained: Trained, photos, capsys):
    models = ["fer2013-emotion/1", "fer2013-emotion/2"]
    assert main(["predict", ", ".join(models), str(photos / "two.jpg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == models


def test_predict_looks_first_whether_it_may_write(trained: Trained, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trainer.inference.stream.ask_all", lambda *_, **__: pytest.fail("a photo was read"))
    (tmp_path / "taken").write_text("a file")
    output = str(tmp_path / "taken" / "answers.csv")
    assert main(["predict", "fer2013-emotion/1", str(photos), "--output", output]) == 2
    assert "taken" in capsys.readouterr().err


def test_predict_leaves_a_former_file_where_it_is_stopped(trained: Trained, photos, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "answers.csv"
    output.write_text("of yesterday")
    monkeypatch.setattr("trainer.inference.stream.ask_all", stop)
    with suppress(KeyboardInterrupt):
        main(["predict", "fer2013-emotion/1", str(photos), "--output", str(output)])
    assert output.read_text() == "of yesterday"
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "answers.csv"}


@pytest.mark.slow
def test_predict_answers_in_order_however_many_photos_there_are(trained: Trained, photos, tmp_path, capsys):
    many = tmp_path / "many"
    many.mkdir()
    for index in range(42):
        name = "sky.png" if index % 7 == 3 else "two.jpg"
        (many / f"{index:03}-{name}").write_bytes((photos / name).read_bytes())
    assert main(["predict", "fer2013-emotion/1", str(many), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    names = [row["photo"] for row in found["predictions"]]
    assert names == sorted(names)
    assert len(names) == 72
    assert len(found["failed"]) == 6


def test_predict_survives_a_name_that_is_no_text(trained: Trained, photos, tmp_path, capsys):
    odd = os.fsencode(tmp_path) + b"/odd\xff.jpg"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123  (bytes)
            file.write((photos / "two.jpg").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    output = tmp_path / "answers.csv"
    assert main(["predict", "fer2013-emotion/1", os.fsdecode(odd), "--output", str(output)]) == 0
    assert "odd\ufffd.jpg" in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photos}/*.tiff"], "no file matches"),
        (["{photos}/empty"], "there are no images in"),
        (["{photos}", "--output", "answers.xlsx"], "the name must end in .csv, .json, .parquet"),
    ],
)
def test_predict_refuses_what_it_cannot_do_at_once(trained: Trained, photos, capsys, arguments, message):
    (photos / "empty").mkdir()
    given = [argument.format(photos=photos) for argument in arguments]
    assert main(["predict", "fer2013-emotion/1", *given]) == 2
    assert message in capsys.readouterr().err


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


def test_evaluate_tells_of_slices_and_of_groups_that_a_user_brings(
    trained: Trained, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")
    assert (
        main(["evaluate", "fer2013-emotion/1", "--data-dir", str(trained.data_dir), "--slices", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)["slices"]
    assert {row["slice"] for row in found if row["grouping"] == "brightness"} == {
        "darkest",
        "medium",
        "brightest",
    }
    groups = tmp_path / "groups.csv"
    table = Reader(open_store(create=False)).predictions(
        find_version(open_store(), "fer2013-emotion/1").run_id
    )
    ids = table.loc[table["part"] == "test", "sample_id"]
    groups.write_text("sample_id,[b]lab[/b]\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(ids)))
    command = ["evaluate", "fer2013-emotion/1", "--data-dir", str(trained.data_dir), "--groups", str(groups)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "[b]lab[/b]" in shown
    assert "left out" not in shown
    with groups.open("a") as file:
        file.write("elsewhere,0\nnowhere,1\n")
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Rows of {groups} that name no test image and are left out: 2" in shown
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == 2
    groups.write_text("id,lab\n")
    assert main(command) == 2
    assert "must be CSV with the column sample_id" in capsys.readouterr().err
    groups.unlink()
    assert main(command) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_evaluate_takes_several_models_as_an_ensemble(trained: Trained, capsys):
    from trainer.commands.models import load_predictor
    from trainer.data.fer2013 import SOURCE

    data = SOURCE.load(trained.data_dir, ("test",))
    test = data.parts["test"]
    members = [load_predictor(f"fer2013-emotion/{version}")[0] for version in (1, 2)]
    mean = np.mean([member(test.images) for member in members], axis=0)
    expected = -np.log(mean[np.arange(len(test)), test.target.numpy()]).mean()
    assert (
        main(
            [
                "evaluate",
                "fer2013-emotion/1, fer2013-emotion/2,",
                "--data-dir",
                str(trained.data_dir),
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "models:/fer2013-emotion/1 + models:/fer2013-emotion/2"
    assert found["test"]["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert main(["evaluate", " , "]) == 2
    assert "error: ' , ' names no model" in capsys.readouterr().err


def test_a_quick_start_trains_as_long_as_its_recipe_does_and_fast_for_less_on_drawn_faces():
    assert [usual_epochs("sketch", "fast", name) for name in ("cnn", "resnet18")] == [8, 10]
    for dataset, recipe in (("fer2013", "fast"), ("sketch", "report"), ("sketch", "best")):
        assert usual_epochs(dataset, recipe, "cnn") == recipe_defaults(recipe, "cnn").epochs


def test_a_quick_start_of_no_epochs_is_refused(workplace, capsys):
    assert main(["quickstart", "--dataset", "sketch", "--epochs", "0"]) == 2
    assert "--epochs 0: must lie between" in capsys.readouterr().err


def test_training_fer2013_without_data_is_an_error(workplace, capsys):
    assert main(["train", "--dataset", "fer2013"]) == 2
    error = capsys.readouterr().err
    assert "data/fer2013" in error
    assert "kaggle datasets download" in error
    assert not (workplace / "mlruns" / "artifacts").exists()


def test_a_difference_of_what_was_not_measured_is_a_dash():
    assert [difference(value) for value in (0.05, -0.05, float("nan"))] == ["+0.050", "-0.050", "–"]
