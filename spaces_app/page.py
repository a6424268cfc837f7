"""The whole page: title, tabs, footer, and how it is served."""

from pathlib import Path
from typing import Any

import gradio as gr

from face_destyle.published import WEIGHTS as TABLE
from spaces_app.common import MAX_FILE_SIZE, WEIGHTS
from spaces_app.destylize import build_destylize
from spaces_app.photo_and_back import build_photo_and_back

KEPT_SECONDS = 3600
STYLESHEET = Path(__file__).parent / "page.css"
SCRIPT = Path(__file__).parent / "page.js"

INTRO = """
<header class="intro">
  <h1>Faces behind the paint</h1>
  <p>Give a stylized portrait; a small network paints the photo that may lie behind it.
  It runs on an ordinary processor, in a fraction of a second.</p>
</header>
"""


def _footer() -> str:
    row = TABLE[WEIGHTS]
    card = f"https://huggingface.co/{row.repo_id}"
    return f"""
<footer class="about">
  <p><strong>What this is not.</strong> A recovered face is a guess made from training data. It is
  no evidence of what a person looks like; do not use it to identify anybody.
  Every picture made here says so in its PNG metadata.</p>
  <p><strong>Your pictures.</strong> They are used for your request only and deleted from this
  server within two hours. Nothing is recorded.</p>
  <p><strong>Weights.</strong> <a href="{card}" target="_blank" rel="noopener">{row.name}
  {row.tag}</a>, licence: {row.licence}. {row.paper}.</p>
</footer>
"""


def build_app() -> gr.Blocks:
    """Build the page; no network is loaded before its first use."""
    with gr.Blocks(
        title="face_destyle: faces behind the paint",
        analytics_enabled=False,
        delete_cache=(KEPT_SECONDS, KEPT_SECONDS),
    ) as app:
        gr.HTML(INTRO)
        with gr.Tabs():
            with gr.Tab("Portrait to face", id="destylize"):
                build_destylize()
            with gr.Tab("Photo and back", id="photo-and-back"):
                build_photo_and_back()
        gr.HTML(_footer())
    return app.queue(max_size=32)


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


def launch(app: gr.Blocks | None = None, **options: Any) -> tuple[Any, str, str]:
    """Serve the page.

    Args:
        app: what `build_app` returns; built where it is None.
        options: passed on to `gr.Blocks.launch`, before the page's own.
    """
    return (app or build_app()).launch(
        **{
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
