"""The Try it page in every state: photos of all kinds, several models, adjusted faces, and nothing kept."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

from dashboard import cache, models, photos
from dashboard.album import ASKED_AT_ONCE, Album, Seen, Spot, sentence
from tests.dashboard.test_pages import answer, open_page, text
from tests.extra.drawn_photos import Upload, encoded, scene
from tests.extra.grey_faces import GREY_LEVELS, Trained, grey_face
from tests.store.test_foreign import make_network, register, takes
from trainer.__main__ import main
from trainer.inference.answers import Answer
from trainer.inference.faces import Face, Region
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.registry import Version, all_versions, set_alias

PAGE = "try_it.py"
CNN, RESNET = "fer2013-emotion/1", "fer2013-emotion/2"
ONE = [(300, 100)]
TWO = [(80, 60), (600, 300)]


@pytest.fixture(autouse=True)
def forget_what_was_read():
    st.cache_resource.clear()
    models._loaded.clear()


@pytest.fixture
def store(trained: Trained):
    """With version 1 as the champion, before and after."""
    store = open_store(create=False)
    set_alias(store, "fer2013-emotion", 1, "champion")
    yield store
    set_alias(store, "fer2013-emotion", 1, "champion")


def photo(places=ONE, **options) -> bytes:
    return encoded(scene(places, **options), quality=92)


def grey(name: str) -> bytes:
    return encoded(Image.fromarray(grey_face(np.random.default_rng(0), GREY_LEVELS[name])), "PNG")


def upload(app: AppTest, **files: bytes) -> AppTest:
    given = [(name.replace("_dot_", "."), data, "image/jpeg") for name, data in files.items()]
    app.file_uploader(key="files").set_value(given).run()
    assert not app.exception, app.exception
    return app


def try_it(*chosen: str, **files: bytes) -> AppTest:
    app = open_page(PAGE, **({"models": list(chosen)} if chosen else {}))
    return upload(app, **files) if files else app


def album(app: AppTest) -> Album:
    return app.session_state[photos.KEY]


def seen(app: AppTest) -> list[Seen]:
    return list(album(app).seen.values())


def cards(app: AppTest) -> str:
    return " ".join(element.proto.body for element in app.get("html"))


def press(app: AppTest, element) -> AppTest:
    element.run()
    assert not app.exception, app.exception
    return app


def test_before_a_photo_the_page_invites_and_the_champion_is_chosen(store):
    app = try_it()
    assert answer(app).startswith("Which emotion, says which model")
    assert app.multiselect(key="models").value == ["fer2013-emotion@champion"]
    assert "Leaving the page frees them" in text(app)
    assert "Do not use it for decisions about people" in text(app)


def test_without_a_registered_model_the_page_says_what_makes_one(stocked, tmp_path):
    client = open_store().client()
    client.create_run(client.create_experiment("empty", str(tmp_path)))
    app = try_it()
    assert answer(app) == "No model is registered yet."
    assert [code.value for code in app.code] == ["make train"]


def test_a_face_is_answered_shown_and_explained(store):
    app = try_it(CNN, photo_dot_jpg=photo())
    assert re.match(r"One face: (not sure: )?\w+", answer(app))
    shown = cards(app)
    assert "what the models see: 48×48 grey" in shown
    assert "what spoke for" in shown
    assert shown.count('class="track"') == len(GREY_LEVELS)
    assert re.search(r"fer2013, test accuracy 1\.000; found least", shown)
    assert "Trained on 108 images of fer2013" in text(app)
    assert "Below 0.50 it counts as not sure" in text(app)
    # What averaging does, and what it costs.
    assert "the mean over ten views" in text(app)
    cost = r"An answer took \d+\.\d ms on the CPU that it was trained on \(\d+\.\d ms for one view alone\)"
    assert re.search(cost, text(app))


def test_the_page_and_the_command_give_the_same_answers(store, tmp_path, capsys):
    data = photo(TWO)
    path = tmp_path / "two.jpg"
    path.write_bytes(data)
    app = try_it(CNN, RESNET, two_dot_jpg=data)
    chosen = models.candidates([(name, version_of(name)) for name in (CNN, RESNET)])
    capsys.readouterr()
    assert main(["predict", f"{CNN},{RESNET}", str(path), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["predictions"]
    found = album(app).records(chosen)
    assert len(found) == len(expected) == 4
    for mine, theirs in zip(found, expected, strict=True):
        assert mine | {"photo": "", "probabilities": {}, "probability": 0} == (
            theirs | {"photo": "", "probabilities": {}, "probability": 0}
        )
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)


def version_of(reference: str):
    name, number = reference.split("/")
    return next(
        v for v in all_versions(open_store(create=False)) if (v.name, v.version) == (name, int(number))
    )


@pytest.mark.parametrize("reference", [CNN, RESNET])
def test_each_grey_level_is_answered_under_its_own_name(store, reference):
    """The names travel from the folders through training, the registry and the page."""
    app = try_it(reference, **{f"{name}_dot_png": grey(name) for name in GREY_LEVELS})
    assert answer(app) == "No face was found on 5 photos."
    for index, name in enumerate(GREY_LEVELS):
        press(app, app.selectbox(key="photo").set_value(index))
        press(app, app.toggle[0].set_value(True))
        assert seen(app)[index].whole
        ((found,),) = [spot.answers.values() for spot in seen(app)[index].spots]
        assert found.best == name
        assert re.search(f'class="answer">(not sure: )?{name} ', cards(app))


def test_two_faces_are_left_and_right_and_models_stand_side_by_side(store):
    app = try_it(CNN, RESNET, two_dot_jpg=photo(TWO))
    assert re.match(r"Two faces\. Left: .+\. Right: .+\.$", answer(app))
    assert "cnn · version 1" in cards(app)
    assert "resnet18 · version 2" in cards(app)
    assert cards(app).count('class="said"') == 4
    assert re.search("Face 1: (both models (agree|name)|the models disagree)", cards(app))


def test_a_face_that_was_drawn_on_the_left_of_another_is_told_as_the_left_one():
    version = Version("faces", 1, None, (), {})
    candidate = models.Candidate(version, "faces/1", "cnn", "#000")
    spots = []
    for number, (x, share) in enumerate(((300, 0.9), (60, 0.2)), start=1):
        region = Region(x, 100, 50)
        said = Answer("faces/1", ("happy", "sad"), np.array([share, 1 - share]))
        spots.append(Spot(number, Face(region), region, [], answers={candidate.key: said}))
    drawn_on = Album()
    drawn_on.seen["a"] = Seen("a", "a.jpg", spots=spots)
    assert sentence(drawn_on, [candidate]) == "Two faces. Left: sad (0.80). Right: happy (0.90)."


def test_a_doubt_of_one_model_is_not_told_of_the_other():
    both = [
        models.Candidate(Version("faces", number, None, (), {}), f"faces/{number}", f"m{number}", "#000")
        for number in (1, 2)
    ]
    region = Region(60, 100, 50)
    said = {
        one.key: Answer(one.name, ("happy", "sad", "fear"), np.array(shares))
        for one, shares in zip(both, ([0.36, 0.34, 0.3], [0.95, 0.03, 0.02]), strict=True)
    }
    album = Album()
    album.seen["a"] = Seen("a", "a.jpg", spots=[Spot(1, Face(region), region, [], answers=said)])
    assert sentence(album, both) == "One face: not sure: happy or sad says m1, happy (0.95) says m2."
    album.seen["b"] = Seen("b", "b.jpg")
    assert "agree" not in sentence(album, both)


def test_what_the_first_model_says_is_counted_without_the_faces_that_it_fails_on():
    first, second = (
        models.Candidate(Version("faces", number, None, (), {}), f"faces/{number}", f"m{number}", "#000")
        for number in (1, 2)
    )
    region, spots = Region(60, 100, 50), []
    for number in range(3):
        said = {second.key: Answer(second.name, ("happy", "sad"), np.array([0.1, 0.9]))}
        if number:
            said[first.key] = Answer(first.name, ("happy", "sad"), np.array([0.9, 0.1]))
        spots.append(Spot(number, Face(region), region, [], answers=said))
    album = Album()
    album.seen["a"] = Seen("a", "a.jpg", spots=spots)
    assert sentence(album, [first, second]) == "Three faces: m1 says 2 happy; the models disagree on 2."


def test_faces_stay_as_they_were_while_the_whole_photo_is_one():
    album = Album()
    album.update([Upload("a", "a.jpg", data := photo(TWO), len(data))], lambda *_: None)
    [one] = album.seen.values()
    album.add(one, Region(30, 30, 20))
    one.spots[0].used = False
    before = one.spots
    album.take_whole(one, True)
    assert (one.whole, len(one.spots)) == (True, 1)
    album.take_whole(one, False)
    assert (one.whole, one.spots) == (False, before)
    assert [spot.used for spot in one.spots] == [False, True, True]


def test_one_photo_that_can_be_read_is_one_photo():
    album = Album()
    album.seen["a"], album.seen["b"] = Seen("a", "a.jpg"), Seen("b", "b.jpg", failure="it is broken")
    assert sentence(album, []) == "No face was found on 1 photo. 1 cannot be read."


def test_many_photos_are_counted_and_what_cannot_be_read_is_named(store):
    app = try_it(
        CNN, a_dot_jpg=photo(), b_dot_jpg=photo(TWO), broken_dot_jpg=photo()[:900], empty_dot_png=b""
    )
    assert answer(app).startswith("4 photos, three faces: ")
    assert answer(app).endswith("2 cannot be read.")
    assert [bool(one.failure) for one in seen(app)] == [False, False, True, True]
    assert "the file is empty" in text(app)
    press(app, app.selectbox(key="photo").set_value(2))
    assert "the image is damaged" in app.error[0].value


def test_photos_without_a_face_are_in_the_json_as_they_are_in_the_commands(store):
    app = try_it(CNN, a_dot_jpg=photo(), sky_dot_png=encoded(Image.new("RGB", (300, 200), "skyblue"), "PNG"))
    chosen = models.candidates([(CNN, version_of(CNN))])
    assert album(app).failed(chosen) == {"sky.png": "no face was found"}
    seen(app)[0].spots[0].used = False
    assert album(app).failed(chosen) == {"a.jpg": "every face is left out", "sky.png": "no face was found"}


def test_a_photo_that_a_model_fails_on_costs_the_others_nothing(store):
    app = try_it(CNN, a_dot_jpg=photo(), b_dot_jpg=photo(TWO))
    chosen = models.candidates([(CNN, version_of(CNN))])
    for one in seen(app):
        for spot in one.spots:
            spot.answers.clear()
    seen(app)[0].spots[0].inputs[48, 1] = np.zeros((1, 48, 48), np.uint8)

    class Moody:
        class_names, size, channels = ("happy",), 48, 1

        def __call__(self, images):
            if not images.any(axis=(1, 2, 3)).all():
                raise ValueError("it fails on black")
            return np.ones((len(images), 1), np.float32)

    for _ in range(2):  # what has failed is asked about again
        assert album(app).ask(chosen[0], Moody()) == {"a.jpg": "it fails on black"}
    assert [row["photo"] for row in album(app).records(chosen)] == ["b.jpg", "b.jpg"]
    assert album(app).failed(chosen) == {"a.jpg": "no model gives an answer"}
    seen(app)[1].spots.clear()
    with pytest.raises(ValueError, match="it fails on black"):
        album(app).ask(chosen[0], Moody())


@pytest.mark.slow
def test_of_many_faces_few_large_inputs_are_held_at_a_time(store):
    places = [(20 + 160 * (i % 6), 10 + 160 * (i // 6)) for i in range(18)]
    many = photo(places, size=(1000, 500), side=150)
    app = try_it(CNN, **{f"{name}_dot_jpg": many for name in "abcd"})
    faces = sum(len(one.spots) for one in seen(app))
    asked = []

    class Large:
        class_names, size, channels = ("happy",), 224, 3

        def __call__(self, images):
            asked.append(len(images))
            return np.ones((len(images), 1), np.float32)

    large = models.Candidate(Version("large", 1, None, (), {}), "large/1", "large", "#000")
    assert album(app).ask(large, Large()) == {}
    assert asked == [ASKED_AT_ONCE, faces - ASKED_AT_ONCE]
    spots = [spot for one in seen(app) for spot in one.spots]
    assert all(set(spot.inputs) == {(48, 1)} for spot in spots)
    [image] = album(app).inputs(seen(app)[0], spots[0], [large])
    assert image.shape == (3, 224, 224)
    assert [len(album(app).records([large])), len(spots[0].answers)] == [faces, 2]


def test_a_face_is_drawn_on_a_narrow_strip_as_well(store):
    app = try_it(CNN, strip_dot_png=encoded(Image.new("RGB", (4000, 30), "skyblue"), "PNG"))
    press(app, app.button(key="draw").click())


def test_a_face_is_left_out_and_comes_back(store):
    app = try_it(CNN, two_dot_jpg=photo(TWO))
    press(app, app.checkbox[0].set_value(False))
    assert answer(app).startswith("One face: ")
    assert cards(app).count('class="said"') == 1
    press(app, app.checkbox[1].set_value(False))
    assert answer(app) == "All 2 faces are left out."
    press(app, app.checkbox[1].set_value(True))
    press(app, app.checkbox[0].set_value(True))
    assert answer(app).startswith("Two faces. ")


def test_an_adjusted_square_is_answered_anew(store):
    app = try_it(CNN, one_dot_jpg=photo())
    before = seen(app)[0].spots[0]
    region, shown = before.face.region, before.inputs[48, 1].copy()
    (size,) = [slider for slider in app.slider if slider.label == "Side"]
    press(app, size.set_value(250))
    after = seen(app)[0].spots[0]
    assert after.face.region.side == pytest.approx(2.5 * region.side)
    assert (after.face.region.x, after.face.region.angle) == (region.x, region.angle)
    assert np.abs(after.inputs[48, 1].astype(int) - shown).mean() > 5
    assert len(after.answers) == len(after.looks) == 1
    (turn,) = [slider for slider in app.slider if slider.label == "Turn clockwise"]
    press(app, turn.set_value(90))
    assert seen(app)[0].spots[0].face.region.angle == pytest.approx(region.angle + 90)


def test_a_moved_square_stays_while_another_photo_is_looked_at(store):
    app = try_it(CNN, one_dot_jpg=photo(), two_dot_jpg=photo(TWO))
    moved = {"To the right": 17, "Down": -9, "Side": 143, "Turn clockwise": 33}
    for label, value in moved.items():
        (slider,) = [slider for slider in app.slider if slider.label == label]
        press(app, slider.set_value(value))
    region = seen(app)[0].spots[0].face.region
    press(app, app.selectbox(key="photo").set_value(1))
    press(app, app.selectbox(key="photo").set_value(0))
    assert seen(app)[0].spots[0].face.region == region
    assert {slider.label: slider.value for slider in app.slider} == moved


def test_a_face_is_added_and_the_whole_image_is_taken(store):
    app = try_it(CNN, sky_dot_png=encoded(Image.new("RGB", (300, 200), "skyblue"), "PNG"))
    assert answer(app) == "No face was found."
    # The dialog for drawing needs a browser: tests/e2e has it.
    press(app, app.button(key="draw").click())
    album(app).add(seen(app)[0], Region(150, 100, 90))
    app.run()
    assert answer(app).startswith("One face: ")
    assert seen(app)[0].spots[0].face.score is None
    press(app, app.toggle[0].set_value(True))
    assert seen(app)[0].spots[0].face.region.side == 200
    press(app, app.toggle[0].set_value(False))
    assert answer(app).startswith("One face: ")
    assert seen(app)[0].spots[0].face.region == Region(150, 100, 90)


def test_a_moved_alias_is_followed_within_seconds_and_the_store_is_not_read_at_every_touch(
    store, monkeypatch
):
    app = try_it(one_dot_jpg=photo())
    assert "cnn · version 1" in cards(app)
    set_alias(store, "fer2013-emotion", 2, "champion")
    time.sleep(cache.FRESH_SECONDS)
    press(app, app.checkbox[0])
    assert "resnet18 · version 2" in cards(app)
    assert app.multiselect(key="models").value == ["fer2013-emotion@champion"]
    read, times = Reader.snapshot, []
    monkeypatch.setattr(Reader, "snapshot", lambda self: times.append(time.monotonic()) or read(self))
    for _ in range(5):
        press(app, app.checkbox[0])
    assert (np.diff(times) >= cache.FRESH_SECONDS).all()


def test_a_picture_of_the_camera_is_a_photo(store):
    app = try_it(CNN)
    app.session_state["source"] = "The camera"
    app.run()
    press(app, app.camera_input(key="camera").set_value(("camera.jpg", photo(), "image/jpeg")))
    assert answer(app).startswith("One face: ")
    before = seen(app)[0]
    for tab in ("Photos", "The camera"):
        app.session_state["source"] = tab
        press(app, app)
        assert seen(app) == [before], tab
    press(app, app.button(key="remove-picture").click())
    assert seen(app) == []


def test_photos_of_one_name_are_told_apart(store):
    app = try_it(CNN)
    given = [("image.jpg", data, "image/jpeg") for data in (photo(), photo(TWO), b"")]
    app.file_uploader(key="files").set_value(given)
    press(app, app)
    assert [one.name for one in seen(app)] == ["image.jpg", "image (2).jpg", "image (3).jpg"]


def test_a_face_that_was_drawn_has_a_place_on_the_page_among_many(store):
    places = [(20 + 160 * (i % 6), 10 + 160 * (i // 6)) for i in range(18)]
    app = try_it(CNN, many_dot_jpg=photo(places, size=(1000, 500), side=150))
    shown = cards(app).count('class="face"')
    assert shown < len(seen(app)[0].used)
    assert sum(bool(spot.looks) for spot in seen(app)[0].used) == shown  # none is explained that nobody sees
    album(app).add(seen(app)[0], Region(500, 250, 90))
    press(app, app)
    assert cards(app).count('class="face"') == shown + 1
    assert any(box.label == f"Use face {len(seen(app)[0].spots)}" for box in app.checkbox)


def test_a_card_shows_what_the_chosen_models_were_shown_and_nothing_else(store):
    app = try_it(CNN, one_dot_jpg=photo())
    (spot,) = seen(app)[0].spots
    (key,) = spot.shown
    assert cards(app).count("what the models see: 48×48 grey") == 1
    spot.inputs[224, 3] = np.zeros((3, 224, 224), np.uint8)
    spot.shown[key] = 224, 3
    press(app, app)
    assert "224×224 colour" in cards(app)
    assert "48×48" not in cards(app)


def test_a_face_that_nobody_moves_is_answered_once(store, monkeypatch):
    app = try_it(CNN)
    monkeypatch.setattr(Album, "adjust", lambda *_: pytest.fail("a face was moved"))
    places = [(20 + 160 * (i % 6), 10 + 160 * (i // 6)) for i in range(18)]
    upload(app, many_dot_jpg=photo(places, size=(1000, 500), side=150))


def test_a_version_that_is_gone_is_dropped_and_a_damaged_one_is_named(trained_copy: Trained, tmp_path):
    client = open_store(create=False).client()
    for path in (tmp_path / "mlruns").rglob("weights.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    app = try_it(CNN, RESNET, one_dot_jpg=photo())
    assert answer(app) == "One face."
    assert len(app.warning) == 2
    assert "fer2013-emotion/1: weights.safetensors cannot be read" in app.warning[0].value.replace("\\", "")
    assert str(tmp_path) not in app.warning[0].value.replace("\\", "")
    client.delete_model_version("fer2013-emotion", "2")
    time.sleep(cache.FRESH_SECONDS)
    press(app, app.checkbox[0])
    assert app.multiselect(key="models").value == [CNN]


def test_a_foreign_version_says_why_not_and_answers_once_the_registry_is_trusted(stocked, monkeypatch):
    import mlflow

    store = open_store()
    experiment = store.experiment_id("strangers")
    # As mlflow.set_experiment does, which would stay so for the tests after this.
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", experiment)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    # Colour, another size, logits, three classes without names; and not a number for an image without contrast.
    network = nn.Sequential(nn.LayerNorm([3, 32, 32], eps=0), make_network(3, 32)).eval()
    kind = takes("float32", -1, 3, 32, 32)
    version = register(store, mlflow.pytorch, network, serialization_format="pickle", signature=kind)
    reference = f"strange/{version.version}"
    app = try_it(reference, one_dot_jpg=photo())
    assert answer(app) == "One face."
    assert "is not of Moodify's format, and loading it runs code" in app.warning[0].value.replace("\\", "")
    assert "MOODIFY_TRUST_REGISTRY=1" in app.warning[0].value.replace("\\", "")
    monkeypatch.setenv("MOODIFY_TRUST_REGISTRY", "1")
    press(app, app.checkbox[0])
    assert [w.value for w in app.warning] == []
    assert re.match(r"One face: (not sure: )?class \d", answer(app))
    assert "what the models see: 32×32 colour" in cards(app)
    assert "what spoke for" not in cards(app)
    assert "It answers with logits" in text(app)
    assert "they are numbered in the order of its answers" in text(app)


def test_a_store_that_goes_away_takes_no_photo_with_it(store):
    app = try_it(CNN, two_dot_jpg=photo(TWO))
    cache.reader()._rows._connection.close()
    cache.forget()
    press(app, app.checkbox[0].set_value(False))
    assert answer(app).startswith("One face: ")
    assert "cannot be read" in app.warning[0].value
    st.cache_resource.clear()  # it is there again
    press(app, app.checkbox[0].set_value(True))
    assert answer(app).startswith("Two faces. Left: ")
    assert not app.warning


def test_of_more_than_200_photos_the_first_200_are_looked_at(store):
    app = try_it(CNN, **{f"{index:03}_dot_png": b"no photo" for index in range(201)})
    assert answer(app) == "None of 200 photos can be read."
    assert "These are 201 photos; the first 200 are looked at" in app.warning[0].value


def test_leaving_the_page_frees_the_photos(store):
    app = try_it(CNN, one_dot_jpg=photo())
    assert photos.KEY in app.session_state
    app.switch_page("app_pages/runs.py").run()
    assert photos.KEY not in app.session_state
    app.switch_page(f"app_pages/{PAGE}").run()
    assert answer(app).startswith("Which emotion")


def test_removing_a_photo_removes_what_was_seen_of_it(store):
    app = try_it(CNN, a_dot_jpg=photo(), b_dot_jpg=photo(TWO))
    assert len(seen(app)) == 2
    upload(app, b_dot_jpg=photo(TWO))
    assert [one.name for one in seen(app)] == ["b.jpg"]


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.jpg", "a\nb.jpg", "**bold** [x](http://y).jpg", "\u202egpj.exe.jpg"],
)
def test_a_files_name_is_text_and_nothing_else(store, name):
    app = open_page(PAGE, models=[CNN])
    app.file_uploader(key="files").set_value([(name, photo(), "image/jpeg")]).run()
    assert not app.exception
    assert "<img src=x" not in cards(app)
    assert "\u202e" not in text(app)
    assert "[x](http" not in " ".join(caption.value for caption in app.caption)


@pytest.mark.slow
def test_torch_and_the_models_are_shared_between_sessions(store):
    try_it(CNN, one_dot_jpg=photo())
    loaded = dict(models._loaded)
    try_it(CNN, one_dot_jpg=photo())
    assert dict(models._loaded) == loaded
    assert len(loaded) == 1


def test_a_model_that_is_there_waits_for_no_other_to_be_loaded(store):
    [first, second] = models.candidates([(name, version_of(name)) for name in (CNN, RESNET)])
    there = models.load(first)
    with ThreadPoolExecutor() as pool:
        with models._loading:  # as while another is fetched
            assert pool.submit(models.load, first).result(timeout=20) is there
            waiting = [pool.submit(models.load, second) for _ in range(2)]
        assert waiting[0].result() is waiting[1].result()
