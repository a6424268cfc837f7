"""`train.evaluate` with the rivals registered: same arguments, same figures, same data."""

import sys

import benchmarks.pix2pix  # noqa: F401  # registers the networks by their model_type
from train.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
