"""The page as it is laid out and served: its tabs, what they say of themselves, its limits."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from app import launch as app_launch
from face_destyle import FaceModel, Stylizer
from face_destyle.published import WEIGHTS
from spaces_app import common, page, photo_and_back
from tests import demo_site

Server = tuple[gr.Blocks, str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with demo_site.own_cache():
        yield demo_site.serve()


def test_each_network_says_which_artworks_it_has_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in demo_site.FURTHER:
        if name != "fdnn-ifrp":
            monkeypatch.delitem(WEIGHTS, name)
    assert photo_and_back.known_styles() == (
        "FDNN has learnt from portraits after The Scream; the others are new to it. "
        "IFRP has learnt from portraits after all of these artworks."
    )
    # Weights that nobody measured yet: nothing is said about them.
    monkeypatch.setattr(type(WEIGHTS["fdnn-ifrp"]), "folder", lambda row: tmp_path)
    assert "IFRP" not in photo_and_back.known_styles()


def test_a_tab_comes_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def titles() -> list[str]:
        return [row.title for row in page.TABS if row.is_shown]

    rows = dict(WEIGHTS)
    for name in demo_site.FURTHER:
        monkeypatch.delitem(WEIGHTS, name)
    assert titles() == ["Portrait to face", "Photo and back", "Whole picture"]
    app = page.build_app()
    tabs = [block.label for block in app.blocks.values() if isinstance(block, gr.Tab)]
    assert tabs == titles()
    assert "fdnn-ifrp" not in page._footer()
    monkeypatch.setitem(WEIGHTS, "fdnn-afrp", rows["fdnn-afrp"])
    assert "Compare" in titles()
    assert "With attributes" not in titles()  # it shows what the classifier sees
    monkeypatch.setitem(WEIGHTS, "attributes", rows["attributes"])
    assert "With attributes" in titles()
    monkeypatch.setitem(WEIGHTS, "fdnn-tann", rows["fdnn-tann"])
    assert "Tiny photo" in titles()


def test_each_tab_says_what_it_is_for(server: Server) -> None:
    blocks = server[0].blocks.values()
    for row in page.TABS:
        (tab,) = [b for b in blocks if isinstance(b, gr.Tab) and b.label == row.title]
        first = tab.children[0]
        assert isinstance(first, gr.Markdown)
        assert first.value == row.purpose
        assert re.fullmatch(r"(For|To see) [^.]+\.", row.purpose)


def test_the_choice_of_a_network_says_what_it_is_for(server: Server) -> None:
    blocks = server[0].blocks.values()
    choices = [b for b in blocks if str(b.elem_id).endswith("-network")]
    assert len(choices) == 3
    for choice in choices:
        assert isinstance(choice, gr.Radio)
        assert [label for label, _ in choice.choices] == [
            "FDNN: upright, well framed",
            "IFRP: may lean",
            "AFRP: may lean",
        ]


def test_strength_that_waits_for_the_button_says_so(server: Server) -> None:
    app, _ = server
    sliders = [b for b in app.blocks.values() if str(b.elem_id).endswith("-strength")]
    waiting = set()
    for slider in sliders:
        assert isinstance(slider, gr.Slider)
        listens = any(block == slider._id for fn in app.fns.values() for block, _ in fn.targets)
        assert listens == (slider.info is None)
        waiting |= set() if listens else {slider.elem_id}
    assert waiting == {"whole-strength"}


def test_sessions_are_forgotten_before_they_fill_the_memory(server: Server) -> None:
    assert server[0].state_holder.capacity == 300


def test_nothing_is_recorded(server: Server) -> None:
    app, _ = server
    assert app.analytics_enabled is False
    assert app.show_error is False
    assert app.config["run_history"] is False
    assert app.delete_cache == (3600, 3600)


def test_building_the_page_loads_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(FaceModel, "from_pretrained", refuse)
    monkeypatch.setattr(Stylizer, "from_pretrained", refuse)
    common.forget_networks()
    assert isinstance(page.build_app(), gr.Blocks)


def test_app_launches_the_page() -> None:
    assert app_launch is page.launch


def test_the_space_asks_for_this_gradio() -> None:
    readme = (Path(page.__file__).parent / "README.md").read_text()
    front = dict(re.findall(r"^(\w+): (.+)$", readme.split("---")[1], re.MULTILINE))
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == importlib.metadata.version("gradio")
    assert (Path(page.__file__).parents[1] / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
