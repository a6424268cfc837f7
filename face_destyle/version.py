"""The version, alone in its file so that every module can read it."""

__version__ = "0.1.0"
