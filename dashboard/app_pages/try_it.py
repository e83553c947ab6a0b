"""Try it: any registered model on photos of your own."""

from collections.abc import Sequence

import streamlit as st

from dashboard import cache, charts, frame, limits, models, photos
from dashboard.album import MOST_PHOTOS, SAVED_PX, SHOWN_PX, Album, Seen, Spot, sentence
from dashboard.face_cards import face_card, photo_view
from dashboard.models import Candidate
from dashboard.text import plain, printable, several, source
from trainer.data.images import SUFFIXES, UNREADABLE, ImageError
from trainer.inference.answers import csv_text, json_text, table
from trainer.inference.faces import Region
from trainer.inference.model import Model
from trainer.store.location import StoreError
from trainer.store.snapshot import Snapshot

SOURCES = ("Photos", "A folder", "The camera")
TYPES = sorted(suffix.removeprefix(".") for suffix in SUFFIXES)
TYPES_IN_FOLDERS = [*TYPES, *(suffix.removeprefix(".") for suffix in UNREADABLE)]
"""Of what cannot be read the page says so: a browser passes over other files of a folder without a word."""
PRIVACY = (
    "Photos stay in the memory of this server while this page is open in your browser: nothing of them is written to "
    "a disk or a log, or sent to anyone else. Leaving the page frees them."
)
CARDS = 12
"""Faces of one photo that are shown with all details; the table and the downloads have all."""


def upload(album: Album) -> list:
    """What the person gave, from all sources together: a photo stays when another tab is looked at."""
    files, folder, camera = st.tabs(SOURCES, key="source", on_change="rerun")
    with files:
        given = (
            st.file_uploader("Photos (save HEIC as JPEG)", TYPES, accept_multiple_files=True, key="files")
            or []
        )
    with folder:
        given += (
            st.file_uploader(
                "A folder of photos (HEIC cannot be read)", TYPES_IN_FOLDERS,
                accept_multiple_files="directory", key="folder",
            )
            or []
        )  # fmt: skip
    with camera:
        if camera.open:
            left = (
                st.camera_input("Take a picture", key="camera", on_change=keep_picture, args=(album,)) is None
            )
            if left and album.picture_taken and st.button("Remove the picture", key="remove-picture"):
                album.picture_taken = None
    return [*given, album.picture_taken] if album.picture_taken else given


def keep_picture(album: Album) -> None:
    """Streamlit forgets the camera's picture while its tab is closed."""
    album.picture_taken = st.session_state["camera"]


def load_models(chosen: Sequence[Candidate]) -> dict[str, Model]:
    """name → model, of those that can be loaded; says why another cannot."""
    loaded = {}
    for candidate in chosen:
        try:
            with st.spinner(f"Loading {plain(candidate.label)}", show_time=True):
                loaded[candidate.name] = models.load(candidate)
        except ValueError as error:
            st.warning(plain(str(error)))
    return loaded


def choose_photo(album: Album) -> Seen:
    seen = list(album.seen.values())
    if len(seen) == 1:
        return seen[0]
    numbers = list(range(len(seen)))
    st.session_state["photo"] = min(st.session_state.get("photo", 0), len(seen) - 1)
    chosen = st.selectbox(
        f"Photo (of {len(seen)})",
        numbers,
        format_func=lambda index: f"{index + 1}: {printable(seen[index].name)} ({verdict(seen[index])})",
        key="photo",
    )
    return seen[chosen]


def verdict(seen: Seen) -> str:
    if seen.failure:
        return "cannot be read"
    if seen.spots and not seen.used:
        return "left out"
    return several(len(seen.used), "face") if seen.used else "no face"


def controls(album: Album, seen: Seen, spot: Spot) -> None:
    """Leave a face out, or move its square."""
    key = f"{seen.file_id}-{seen.whole}-{spot.number}"
    with st.container(horizontal=True, vertical_alignment="center"):
        used = st.checkbox(f"Use face {spot.number}", spot.used, key=f"use-{key}")
        if used != spot.used:
            spot.used = used
            st.rerun()
        if not spot.used:
            return
        with st.popover(f"Adjust face {spot.number}"):
            st.caption("Move the square that is taken for the face; in percent of its side, and in degrees.")
            # What was chosen is told by the square: Streamlit forgets sliders while another photo is looked at.
            at = moves(spot)
            across = st.slider("To the right", -100, 100, at[0], format="%d%%", key=f"across-{key}")
            down = st.slider("Down", -100, 100, at[1], format="%d%%", key=f"down-{key}")
            size = st.slider("Side", 25, 300, at[2], format="%d%%", key=f"size-{key}")
            turn = st.slider("Turn clockwise", -180, 180, at[3], format="%d°", key=f"turn-{key}")
    side = spot.found.side
    x, y = spot.found.x + side * across / 100, spot.found.y + side * down / 100
    region = Region(x, y, side * (size / 100), spot.found.angle + turn)  # exactly what was found, at 100%
    if region != spot.face.region:
        album.adjust(seen, spot, region)
        st.rerun()


def moves(spot: Spot) -> tuple[int, int, int, int]:
    """How far the square was moved to the right and down and how long it is, in percent of what was found; its turn."""
    found, taken = spot.found, spot.face.region
    return (
        round(100 * (taken.x - found.x) / found.side),
        round(100 * (taken.y - found.y) / found.side),
        round(100 * taken.side / found.side),
        round(taken.angle - found.angle),
    )


@st.dialog("Draw a square around the face", width="large")
def draw_face(album: Album, seen: Seen) -> None:
    """A face that was not found, or was found badly."""
    figure = charts.drawable(
        source(album.plain_picture(seen), "jpeg"), seen.width, seen.height,
        [spot.face.region.corners() for spot in seen.used],
    )  # fmt: skip
    drawn = st.plotly_chart(
        figure, on_select="rerun", selection_mode="box", key="drawing", config=charts.CONFIG,
        alt=f"{printable(seen.name)}, to draw on",
    )  # fmt: skip
    box = drawn.selection.box[-1] if drawn.selection.box else None
    st.caption(
        "Drag from corner to corner, a little more than ear to ear and brow to chin; it becomes a square."
    )
    with st.container(horizontal=True):
        if st.button("Take this square", type="primary", disabled=box is None, key="take"):
            album.add(seen, square(box["x"], box["y"]))  # type: ignore[index]
            st.rerun()
        if st.button("Take the middle of the photo", key="middle"):
            album.add(
                seen, square((seen.width * 0.25, seen.width * 0.75), (seen.height * 0.25, seen.height * 0.75))
            )
            st.rerun()


def square(x: Sequence[float], y: Sequence[float]) -> Region:
    """Around the middle of a box, as long as its sides are on average."""
    across, down = abs(x[1] - x[0]), abs(y[1] - y[0])
    return Region(sum(x) / 2, sum(y) / 2, max(8.0, (across + down) / 2))


def show_photo(album: Album, seen: Seen, chosen: Sequence[Candidate]) -> None:
    """The photo with its squares, and what can be changed about them."""
    st.html(photo_view(album.picture(seen, chosen, SHOWN_PX, words=False), seen))
    st.caption(
        f"{plain(printable(seen.name))}, {seen.width:,} × {seen.height:,} px; read and searched for faces in "
        f"{seen.milliseconds:.0f} ms"
    )
    with st.container(horizontal=True):
        whole = st.toggle("Take the whole image as the face", seen.whole, key=f"whole-{seen.file_id}")
        if whole != seen.whole:
            album.take_whole(seen, whole)
            st.rerun()
        if st.button("Draw a face", key="draw", disabled=seen.whole):
            draw_face(album, seen)
    for spot in first_of(seen.spots):
        controls(album, seen, spot)


def show_faces(
    album: Album, seen: Seen, chosen: Sequence[Candidate], snapshot: Snapshot, loaded: dict[str, Model]
) -> None:
    if not seen.spots:
        st.markdown(
            "No face was found on this photo. If it is one, take the whole image as the face, or draw it."
        )
    briefs = {candidate.name: limits.brief(snapshot, candidate) for candidate in chosen}
    shown = first_of(seen.used)
    for candidate in chosen:
        if candidate.name in loaded:
            album.explain(seen, shown, candidate, loaded[candidate.name])
    for spot in shown:
        inputs = album.inputs(seen, spot, chosen)
        st.html(face_card(spot, inputs, chosen, briefs, numbered=len(seen.spots) > 1))
    if len(seen.used) > CARDS:
        st.caption(f"{len(shown)} of {len(seen.used)} faces; the downloads have all.")


def first_of(spots: Sequence[Spot]) -> list[Spot]:
    """Those with a place on the page: the first, and what a person has drawn, who wants to see it."""
    return [spot for index, spot in enumerate(spots) if index < CARDS or spot.face.score is None]


def show_answers(album: Album, seen: Seen, chosen: Sequence[Candidate]) -> None:
    """All of them, to read and to take away; put together only when somebody asks for them."""
    answered = bool(chosen) and any(one.used for one in album.seen.values())
    if answered and len(album.seen) > 1:
        with st.expander("All answers", on_change="rerun", key="all") as everything:
            if everything.open:
                found = table(album.records(chosen)).drop(
                    columns=["x", "y", "side", "angle", "detection_score"]
                )
                first = ["photo", "face", "answer"]  # before what is cut off on a narrow screen
                columns = {
                    "photo": st.column_config.TextColumn(width=120),
                    "face": st.column_config.NumberColumn(width=50),
                }
                columns |= {
                    name: st.column_config.NumberColumn(name.removeprefix("probability/"), format="%.3f")
                    for name in found
                    if name.startswith("probability")
                }
                st.dataframe(
                    found[[*first, *found.columns.drop(first)]], hide_index=True, height=frame.height(len(found)),
                    column_config=columns, alt="One row for each face and model",
                )  # fmt: skip
    names = [candidate.name for candidate in chosen]
    with st.container(horizontal=True):
        st.download_button(
            "Answers as CSV", lambda: csv_text(album.records(chosen)).encode(), "answers.csv", "text/csv",
            disabled=not answered, on_click="ignore", key="csv",
        )  # fmt: skip
        st.download_button(
            "Answers as JSON", lambda: json_text(names, album.records(chosen), album.failed(chosen)).encode(),
            "answers.json", "application/json", disabled=not answered, on_click="ignore", key="json",
        )  # fmt: skip
        st.download_button(
            "Annotated picture", lambda: album.picture(seen, chosen, SAVED_PX, words=True), "annotated.jpg",
            "image/jpeg", disabled=not seen.used, on_click="ignore", key="picture",
        )  # fmt: skip


def show_models(snapshot: Snapshot, chosen: Sequence[Candidate], loaded: dict[str, Model]) -> None:
    """What stands beside the answers: limits and intended use."""
    with st.expander("What these models know, and what they are not for", expanded=True):
        for candidate in chosen:
            if candidate.name not in loaded:
                continue
            run_id = candidate.version.run_id
            known = run_id in snapshot.runs.index
            found = (
                cache.predictions(run_id, snapshot.runs.at[run_id, "status"]) if run_id and known else None
            )
            lines = limits.about(snapshot, candidate, loaded[candidate.name], found)
            st.markdown(f"**{plain(candidate.label)}.** {' '.join(lines)}")
        st.markdown(limits.ETHICS)


album = st.session_state.get(photos.KEY) or Album()
if album.seen:  # a store that went away takes no photo with it
    try:
        snapshot = cache.snapshot()
    except StoreError as error:
        st.warning(f"{plain(str(error))}. Versions and aliases are those of a moment ago.")
        snapshot = album.snapshot
else:
    snapshot = frame.load("Try it", without_runs=True)
if not snapshot.versions:
    frame.answer("Try it", "No model is registered yet.")
    st.markdown("Every training that ends well registers a version:")
    st.code("make train", language="bash")
    st.stop()
top = st.container()
album.snapshot = snapshot
photos.keep(album)
left, right = st.columns([3, 2], gap="large")
with left:
    uploads = upload(album)
with right:
    chosen = models.choose_models(snapshot)
    st.caption(PRIVACY)

bar = st.empty()
album.update(uploads, bar.progress)
bar.empty()
if not album.seen:
    with top:
        frame.answer("Try it", "Which emotion, says which model, and why? Try it on a photo of your own.")
    models.load_ahead()
    with st.expander("What the models are not for", expanded=True):
        st.markdown(limits.ETHICS)
    st.stop()
if len(uploads) > MOST_PHOTOS:
    st.warning(
        f"These are {len(uploads)} photos; the first {MOST_PHOTOS} are looked at. The command takes any number."
    )
loaded = load_models(chosen)
for candidate in list(chosen):
    if candidate.name in loaded:
        try:
            failed = album.ask(candidate, loaded[candidate.name])
            for name, reason in failed.items():
                st.warning(
                    f"{plain(candidate.label)} gives no answer for {plain(printable(name))}: {plain(reason)}"
                )
        except (ValueError, ImageError) as error:
            st.warning(f"{plain(candidate.label)} gives no answer: {plain(str(error))}")
            del loaded[candidate.name]
answering = [candidate for candidate in chosen if candidate.name in loaded]
with top:
    frame.answer("Try it", plain(sentence(album, answering)))
if not chosen:
    st.info("Choose a model above to have an answer.")

seen = choose_photo(album)
if seen.failure:
    st.error(f"{plain(printable(seen.name))}: {plain(seen.failure)}.")
else:
    left, right = st.columns([2, 3], gap="large")
    with left:
        show_photo(album, seen, answering)
    with right:
        show_faces(album, seen, answering, snapshot, loaded)
failures = [one for one in album.seen.values() if one.failure and one is not seen]
if failures:
    with st.expander(f"{several(len(failures), 'photo')} cannot be read"):
        for one in failures:
            st.markdown(f"{plain(printable(one.name))}: {plain(one.failure)}.")
show_answers(album, seen, answering)
show_models(snapshot, answering, loaded)
