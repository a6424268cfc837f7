"""`python -m face_destyle` is the command line."""

import sys

from face_destyle.cli import main

if __name__ == "__main__":
    sys.exit(main())
