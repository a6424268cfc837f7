"""The whole page: title, tabs, footer, and how it is served."""

import html
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.routes import App
from gradio.utils import get_upload_folder

from face_destyle.published import WEIGHTS as TABLE
from spaces_app.common import (
    AFRP,
    CLASSIFIER,
    FDNN,
    IFRP,
    MAX_FILE_SIZE,
    MOST_WAITING,
    TANN,
    TITLES,
    card_link,
    portrait_networks,
)
from spaces_app.compare import build_compare
from spaces_app.destylize import build_destylize
from spaces_app.guided import build_guided
from spaces_app.photo_and_back import build_photo_and_back
from spaces_app.plain import PATH, PlainRecovery
from spaces_app.sessions import Sessions
from spaces_app.sweeping import keep_sweeping, kept_by
from spaces_app.tiny import build_tiny
from spaces_app.turned import build_turned
from spaces_app.whole import build_whole

KEPT_SECONDS = 3600
SWEEP_SECONDS = 300
# By default Gradio remembers 10,000 visitors. Nothing here lives in a session, so that of somebody
# who is long away may be forgotten.
SESSIONS = 300
SWITCH_SECONDS = 1e-4
LOOK_SECONDS = 0.01
STYLESHEET = Path(__file__).parent / "page.css"
SCRIPT = Path(__file__).parent / "page.js"

INTRO = """
<header class="intro">
  <h1>Faces behind the paint</h1>
  <p>Give a stylized portrait; a small network paints the photo that may lie behind it.
  It runs on an ordinary processor, in a fraction of a second.</p>
</header>
"""


@dataclass(frozen=True)
class TabRow:
    """One tab of the page.

    Attributes:
        title: what the visitor reads.
        id: what it is in the address of the page and in names.
        purpose: what it is for, a sentence above everything else in it.
        build: lays it out.
        networks: those whose weights must be published.
        portrait_networks: how many networks that take a portrait must be.
    """

    title: str
    id: str
    purpose: str
    build: Callable[[], None]
    networks: tuple[str, ...] = ()
    portrait_networks: int = 1

    @property
    def is_shown(self) -> bool:
        """Whether its weights are published."""
        enough = len(portrait_networks()) >= self.portrait_networks
        return enough and all(name in TABLE for name in self.networks)


TABS = (
    TabRow(
        "Portrait to face",
        "destylize",
        "For a portrait whose face is upright: you frame it by hand, and FDNN recovers the photo.",
        build_destylize,
        (FDNN,),
    ),
    TabRow(
        "Turned portrait",
        "turned",
        "For a portrait whose face leans or lies off the middle: IFRP finds how, and recovers the "
        "photo upright.",
        build_turned,
        (IFRP,),
    ),
    TabRow(
        "With attributes",
        "guided",
        "For a portrait of somebody of whom you know something, such as hair colour or age: AFRP "
        "takes that into account.",
        build_guided,
        (AFRP, CLASSIFIER),
    ),
    TabRow(
        "Tiny photo",
        "tiny",
        "For a photo in which the head is very small and turned away: TANN guesses the frontal "
        "face.",
        build_tiny,
        (TANN,),
    ),
    TabRow(
        "Photo and back",
        "photo-and-back",
        "To see how near a recovered face comes to the truth: your photo is painted, recovered, "
        "and compared with the photo.",
        build_photo_and_back,
    ),
    TabRow(
        "Compare",
        "compare",
        "To see one portrait through every network that takes portraits.",
        build_compare,
        portrait_networks=2,
    ),
    TabRow(
        "Whole picture",
        "whole",
        "For a picture with one face or several, or for many files: the faces are found for you "
        "and put back where they were.",
        build_whole,
    ),
)


def _footer() -> str:
    licences: dict[str, list[str]] = {}
    for name in [*TITLES, CLASSIFIER]:
        if name in TABLE:
            row = TABLE[name]
            link = (
                f'<a href="{card_link(name)}" target="_blank" rel="noopener" '
                f'title="{html.escape(row.paper)}">{name}&nbsp;{row.tag}</a>'
            )
            licences.setdefault(row.licence, []).append(link)
    weights = "; ".join(
        f"{', '.join(links)}: {html.escape(licence)}" for licence, links in licences.items()
    )
    return f"""
<footer class="about">
  <p><strong>What this is not.</strong> A recovered face is a guess made from training data. It is
  no evidence of what a person looks like; do not use it to identify anybody.
  Every picture made here says so in its PNG metadata.</p>
  <p><strong>Your pictures.</strong> They are used for your request only and deleted from this
  server within two hours. Nothing is recorded.</p>
  <p><strong>Weights and their licence.</strong> {weights}.</p>
</footer>
"""


def build_app() -> gr.Blocks:
    """Build the page, with the tabs whose weights are published.

    No network is loaded before its first use.
    """
    with gr.Blocks(
        title="face_destyle: faces behind the paint",
        analytics_enabled=False,
        # This empties the cache when the server is stopped in peace; else see `sweeping`.
        delete_cache=(KEPT_SECONDS, KEPT_SECONDS),
    ) as app:
        gr.HTML(INTRO)
        with gr.Tabs():
            for row in TABS:
                if row.is_shown:
                    with gr.Tab(row.title, id=row.id):
                        gr.Markdown(row.purpose, elem_classes=["hint", "purpose"])
                        row.build()
        gr.HTML(_footer())
    # Without this, requests to /run would go past the queue.
    return app.queue(max_size=MOST_WAITING, api_open=False)


def theme() -> gr.themes.Base:
    """Quiet greys and one colour; the font is served from here, not from another site."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_label_background_fill="white",
        block_label_background_fill_dark="*neutral_900",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        color_accent="*primary_700",
        block_label_border_width="0px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )


@asynccontextmanager
async def serving(server: App) -> AsyncIterator[None]:
    """What the server has beside Gradio's own, from its start on."""
    # A network asks for Python's lock at each of its layers; with Python's own 5 ms, whoever has it
    # keeps it waiting longer than the layer takes.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Gradio looks into its queue a thousand times a second, a twentieth of a core.
    server.get_blocks()._queue.sleep_when_free = LOOK_SECONDS
    server.state_holder = Sessions()
    server.state_holder.set_blocks(server.get_blocks())
    if server.auth is None and server.auth_dependency is None:  # it asks nobody for a password
        server.add_route(PATH, PlainRecovery().answer, methods=["POST"], include_in_schema=False)
    yield


def launch(app: gr.Blocks | None = None, **options: Any) -> tuple[Any, str, str]:
    """Serve the page, and delete what its visitors leave behind.

    Args:
        app: what `build_app` returns; built where it is None.
        options: passed on to `gr.Blocks.launch`, before the page's own.
    """
    app = app or build_app()
    keep_sweeping(Path(get_upload_folder()), KEPT_SECONDS, kept_by(app), SWEEP_SECONDS)
    return app.launch(
        **{
            "app_kwargs": {"lifespan": serving},
            "state_session_capacity": SESSIONS,
            "theme": theme(),
            "css_paths": STYLESHEET,
            "js": SCRIPT.read_text(),
            "max_file_size": MAX_FILE_SIZE,
            "run_history": False,
            "show_error": False,
            "footer_links": ["api"],
            **options,
        }
    )
