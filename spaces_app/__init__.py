"""The demo in the browser: `page.py` puts it together, one file a tab."""

import os

# Gradio reads this while it is imported, so it stands before every import of it.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
