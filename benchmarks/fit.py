"""`train.fit` with the rivals registered: same arguments, same loop, same data."""

import sys

import benchmarks.pix2pix  # noqa: F401  # registers the networks by their model_type
from train.fit import main

if __name__ == "__main__":
    sys.exit(main())
