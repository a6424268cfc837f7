"""What the server remembers of a visitor: next to nothing, so that thousands cost next to nothing.

Gradio describes every part of the page anew for each visitor, and a program that calls the page
without giving a session is a new visitor at every call: 25 ms and 0.2 MB, more than the recovery
itself. It then writes into that description what the visitor sent and received. Only links that
restore somebody's inputs are made from it, and there are none here.
"""

from copy import copy
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState, StateHolder


class Session(SessionState):
    """One visitor's, without a description of the page."""

    def __init__(self, blocks: gr.Blocks) -> None:
        # In place of Gradio's own, which describes every part of the page.
        self.blocks_config = copy(blocks.default_config)
        self.config_values = {}
        self.state_data = {}
        self._state_ttl = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def __setitem__(self, key: int, value: Any) -> None:
        """Gradio's own, without the description that it makes of a part which has changed."""
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        """Nothing is kept."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing is kept."""


class Sessions(StateHolder):
    """Those of all visitors; the longest unused is forgotten where there are too many."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)
