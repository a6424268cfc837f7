"""Tables of photos and pairs: the splits of parquet files, and what cannot be loaded."""

from pathlib import Path

import pytest
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from face_destyle.errors import UserError
from train import photos
from train.photos import load_table

ROWS = 1000


def parquet(path: Path) -> Path:
    """A file of `ROWS` numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"number": list(range(ROWS))}).to_parquet(str(path))
    return path


def said(source: Path) -> str:
    """The one line that loading ends in."""
    with pytest.raises(UserError) as raised:
        load_table(str(source))
    line = str(raised.value)
    assert "\n" not in line and f"cannot load {source}: " in line
    return line


class TestSplits:
    @pytest.mark.parametrize(
        "names",
        [
            ("train.parquet", "test.parquet"),
            ("train-00000.parquet", "train-00001.parquet", "test-00000.parquet"),
            ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
            (
                "default/train/0000.parquet",
                "default/train/0001.parquet",
                "default/test/0000.parquet",
            ),
        ],
    )
    def test_are_what_the_names_say(self, names: tuple[str, ...], tmp_path: Path) -> None:
        for name in names:
            parquet(tmp_path / name)
        table = load_table(str(tmp_path))
        sizes = {split: len(rows) for split, rows in table.items()}
        assert sizes == {"train": ROWS * (len(names) - 1), "test": ROWS}

    def test_of_the_folder_that_is_named_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = parquet(tmp_path / "default" / "test" / "0000.parquet").parent
        assert list(load_table(str(folder))) == ["test"]
        monkeypatch.chdir(folder)
        assert list(load_table(".")) == ["test"]


class TestDamage:
    def test_a_truncated_file(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "train.parquet")
        path.write_bytes(path.read_bytes()[:-100])
        assert "magic bytes not found" in said(tmp_path)

    def test_a_truncated_file_after_a_whole_one(self, tmp_path: Path) -> None:
        parquet(tmp_path / "train-00000.parquet")
        path = parquet(tmp_path / "train-00001.parquet")
        path.write_bytes(path.read_bytes()[:-100])
        assert "magic bytes not found" in said(tmp_path)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        """The reason, and not that of `datasets`, which says only that an error occurred."""
        path = parquet(tmp_path / "train.parquet")
        content = path.read_bytes()
        path.write_bytes(content[:40] + bytes(200) + content[240:])
        assert "orrupt" in said(tmp_path)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "train.parquet").touch()
        assert "0 bytes" in said(tmp_path)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ValueError(), "ValueError"),
            (OSError("  \n"), "OSError"),
            (DatasetGenerationError("first\nsecond"), "first"),
        ],
    )
    def test_an_error_that_says_little(
        self, error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise error

        parquet(tmp_path / "train.parquet")
        monkeypatch.setattr(photos, "load_dataset", fail)
        assert said(tmp_path).endswith(f": {reason}")
