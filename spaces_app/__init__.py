"""The demo in the browser: `page.py` puts it together, one file a tab."""

import os
import tempfile
from pathlib import Path

# Gradio reads this while it is imported, so it stands before every import of it.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Gradio keeps a record of its last 10,000 calls, and counts all of them anew after each.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
# What is old is swept out of this folder, so other pages made with Gradio must not share it.
_CACHE = Path(tempfile.gettempdir()).resolve() / "gradio" / "face-destyle"
os.environ.setdefault("GRADIO_TEMP_DIR", str(_CACHE))
