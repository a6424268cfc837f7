"""What holds for the tests of training: only the commands' own lines on stderr."""

import datasets
import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_bars_of_datasets() -> None:
    datasets.disable_progress_bars()
