"""Launch the demo: `python app.py`, then open the address that it prints."""

from spaces_app.page import launch

if __name__ == "__main__":
    launch()
