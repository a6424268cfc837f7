"""Folders of portraits: names, resuming, records, one broken file among many."""

import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from face_destyle import PictureError, UserError, folders, images
from face_destyle.folders import RECORDS, Recoverer, find_portraits, read_records, recover_folder
from tests import drawn


class Inverter:
    """Stands for a network: a picture becomes its negative."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def recoverer(self, weights: str = "net", options: str = "", size: int = 4) -> Recoverer:
        return Recoverer(images.load_picture, self.recover, weights, options, size)

    def recover(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        self.batches.append(len(pictures))
        return [picture.point(lambda value: 255 - value) for picture in pictures]


def touch(folder: Path, *names: str) -> Path:
    """A folder with pictures of these names, each of a grey of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, number, number)).save(path)
    return folder


def lines(folder: Path) -> dict[str, dict[str, object]]:
    """results.jsonl by file: one line each."""
    records = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    by_file = {record["file"]: record for record in records}
    assert len(by_file) == len(records)
    return by_file


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


class TestNames:
    def test_sub_folders_and_other_endings(self, tmp_path: Path) -> None:
        source = touch(tmp_path / "in", "b.JPG", "a.webp", "deep/er/c.png")
        assert find_portraits(source, tmp_path / "out") == {
            "a.webp": "a.png",
            "b.JPG": "b.png",
            "deep/er/c.png": "deep/er/c.png",
        }

    def test_what_is_no_portrait(self, tmp_path: Path) -> None:
        source = touch(tmp_path / "in", "a.png", ".hidden.png", ".folder/b.png", "out/c.png")
        (source / "notes.txt").write_text("no picture")
        (source / "d.png").mkdir()
        assert list(find_portraits(source, source / "out")) == ["a.png"]

    def test_two_of_one_name_keep_theirs_apart(self, tmp_path: Path) -> None:
        names = ("a.jpg", "a.png", "A.webp", "b.jpg", "c.png", "c.png.bmp")
        found = find_portraits(touch(tmp_path / "in", *names), tmp_path / "out")
        assert found == {
            "A.webp": "A.webp.png",
            "a.jpg": "a.jpg.png",
            "a.png": "a.png.png",
            "b.jpg": "b.png",
            "c.png": "c.png",
            "c.png.bmp": "c.png.bmp.png",
        }
        assert len({name.casefold() for name in found.values()}) == len(found)


class TestRun:
    def test_every_portrait_has_its_photo_and_its_line(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "b.png", "a.jpg", "deep/c.png"), tmp_path / "out"
        network = Inverter()
        summary = recover_folder(source, output, network.recoverer("net", "--whole", 2))
        assert (summary.recovered, summary.present, summary.failed) == (3, 0, ())
        assert network.batches == [2, 1]
        assert files(output) == ["a.png", "b.png", "deep/c.png"]
        assert not list(tmp_path.rglob("*.partial"))
        for name, grey in (("b", 255), ("a", 254), ("deep/c", 253)):
            with Image.open(output / f"{name}.png") as photo:
                assert photo.getpixel((4, 4)) == pytest.approx((grey,) * 3, abs=1)
                assert photo.text["Weights"] == "net"
        record = lines(output)["deep/c.png"]
        assert 0 < record.pop("seconds") < 10
        assert record == {
            "file": "deep/c.png",
            "status": "done",
            "output": "deep/c.png",
            "weights": "net",
            "options": "--whole",
        }

    @pytest.mark.parametrize("size", [1, 3, 16])
    def test_a_broken_file_does_not_stop_the_others(self, size: int, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "b.png", "d.png"), tmp_path / "out"
        kinds = [kind for kind in drawn.UNREADABLE_FILES if kind != "too large"]  # it takes long
        failed = sorted(drawn.unreadable(kind, source).name for kind in kinds)
        summary = recover_folder(source, output, Inverter().recoverer(size=size))
        assert summary.recovered == 3
        assert [record.file for record in summary.failed] == failed
        assert files(output) == ["a.png", "b.png", "d.png"]
        records = lines(output)
        assert len(records) == 3 + len(failed)
        assert [name for name in records if records[name]["status"] == "failed"] == failed
        for name in failed:
            assert "output" not in records[name]
            assert str(source / name) in records[name]["error"]

    def test_what_only_the_network_refuses(self, tmp_path: Path) -> None:
        def refuse(pictures: Sequence[Image.Image]) -> list[Image.Image]:
            raise PictureError("no face was found")

        source, output = touch(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
        recoverer = Recoverer(images.load_picture, refuse, "net", batch_size=1)
        summary = recover_folder(source, output, recoverer)
        assert [record.error for record in summary.failed] == ["no face was found"] * 2
        assert files(output) == []

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "deep/b.png"), tmp_path / "out"
        output.mkdir()
        (output / "deep").write_text("a file")
        summary = recover_folder(source, output, Inverter().recoverer())
        assert [record.file for record in summary.failed] == ["deep/b.png"]
        assert "cannot be written" in summary.failed[0].error
        assert files(output) == ["a.png"]


class TestResume:
    def test_what_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        before = (output / "a.png").stat().st_mtime_ns, lines(output)["a.png"]
        touch(source, "c.png")
        network = Inverter()
        summary = recover_folder(source, output, network.recoverer())
        assert (summary.recovered, summary.present) == (1, 2)
        assert network.batches == [1]
        assert ((output / "a.png").stat().st_mtime_ns, lines(output)["a.png"]) == before
        assert set(lines(output)) == {"a.png", "b.png", "c.png"}

    def test_a_run_that_was_killed_goes_on(self, tmp_path: Path) -> None:
        """After the photo and before its line, and in the middle of a line."""
        source, output = touch(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        whole = (output / RECORDS).read_text().splitlines(keepends=True)
        (output / RECORDS).write_text(whole[0] + whole[1][:20])
        (output / "c.png").unlink()
        summary = recover_folder(source, output, Inverter().recoverer())
        assert (summary.recovered, summary.present) == (1, 2)
        records = lines(output)
        statuses = {name: record["status"] for name, record in records.items()}
        assert statuses == {"a.png": "done", "b.png": "skipped", "c.png": "done"}
        assert files(output) == ["a.png", "b.png", "c.png"]

    def test_a_line_that_was_cut_anywhere_is_forgotten(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        content = (output / RECORDS).read_text()
        first = content.index("\n") + 1
        for length in range(first, len(content) + 1):
            (output / RECORDS).write_text(content[:length])
            whole = length >= len(content) - 1  # but for the end of the line
            assert set(read_records(output / RECORDS)) == {"a.png", "b.png"} - (
                set() if whole else {"b.png"}
            )

    def test_an_interrupt_keeps_what_is_done(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
        network = Inverter()

        def interrupted(pictures: Sequence[Image.Image]) -> list[Image.Image]:
            if len(network.batches) == 2:
                raise KeyboardInterrupt
            return network.recover(pictures)

        recoverer = Recoverer(images.load_picture, interrupted, "net", batch_size=1)
        with pytest.raises(KeyboardInterrupt):
            recover_folder(source, output, recoverer)
        assert set(lines(output)) == {"a.png", "b.png"}
        assert files(output) == ["a.png", "b.png"]

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                os.fsdecode(b"caf\xe9"),
                marks=pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there"),
            ),
            "caf\u00e9",
            "a\u2028b\u0085c",  # each ends a line for str.splitlines
        ],
    )
    def test_names_of_all_kinds_are_known_again(self, name: str, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", f"{name}.png", f"{name}/b.png"), tmp_path / "out"
        (source / f"{name}-bad.png").write_text("no picture")
        for recovered, present in ((2, 0), (0, 2)):
            summary = recover_folder(source, output, Inverter().recoverer())
            assert (summary.recovered, summary.present) == (recovered, present)
            assert [record.file for record in summary.failed] == [f"{name}-bad.png"]
            assert "-bad.png is not a picture" in summary.failed[0].error
            statuses = {file: record["status"] for file, record in lines(output).items()}
            assert statuses == {
                f"{name}.png": "done",
                f"{name}/b.png": "done",
                f"{name}-bad.png": "failed",
            }
        assert files(output) == sorted([f"{name}.png", f"{name}/b.png"])

    def test_what_failed_is_tried_again(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        drawn.unreadable("text", source)
        recover_folder(source, output, Inverter().recoverer())
        touch(source, "text.png")
        summary = recover_folder(source, output, Inverter().recoverer())
        assert (summary.recovered, summary.present, summary.failed) == (1, 1, ())
        assert lines(output)["text.png"]["status"] == "done"

    def test_the_photo_of_another_portrait_is_not_its_own(self, tmp_path: Path) -> None:
        """q.jpg makes way for q.webp, of somebody else."""
        source, output = touch(tmp_path / "in", "p.png", "q.jpg"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        before = (output / "q.png").read_bytes()
        (source / "q.jpg").unlink()
        Image.new("RGB", (9, 9), (200, 200, 200)).save(source / "q.webp", lossless=True)
        for recovered, present in ((1, 1), (0, 2)):
            summary = recover_folder(source, output, Inverter().recoverer())
            assert (summary.recovered, summary.present, summary.failed) == (recovered, present, ())
            assert files(output) == ["p.png", "q.png", "q.webp.png"]
            assert lines(output)["q.webp"]["output"] == "q.webp.png"
        assert (output / "q.png").read_bytes() == before
        with Image.open(output / "q.webp.png") as photo:
            assert photo.getpixel((4, 4)) == (55, 55, 55)

        summary = recover_folder(source, output, Inverter().recoverer(), overwrite=True)
        assert (summary.recovered, summary.failed) == (2, ())
        with Image.open(output / "q.png") as photo:
            assert photo.getpixel((4, 4)) == (55, 55, 55)
        records = lines(output)
        assert set(records) == {"p.png", "q.webp"}  # q.jpg has no photo any more
        assert records["q.webp"]["output"] == "q.png"
        assert recover_folder(source, output, Inverter().recoverer()).present == 2

    def test_what_was_only_found_there_is_of_one_portrait_too(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "q.jpg"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        (output / RECORDS).unlink()  # as by a run that was killed before its first line
        recover_folder(source, output, Inverter().recoverer())
        assert lines(output)["q.jpg"]["status"] == "skipped"
        (source / "q.jpg").rename(source / "q.jpeg")
        assert recover_folder(source, output, Inverter().recoverer()).recovered == 1
        assert files(output) == ["q.jpeg.png", "q.png"]

    def test_both_names_are_of_other_portraits(self, tmp_path: Path) -> None:
        """Nothing that exists is replaced; the others are done."""
        source, output = touch(tmp_path / "in", "q.jpg", "q.webp.bmp"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        before = {name: (output / name).read_bytes() for name in ("q.png", "q.webp.png")}
        (source / "q.jpg").unlink()
        (source / "q.webp.bmp").unlink()
        touch(source, "r.png", "q.webp")
        summary = recover_folder(source, output, Inverter().recoverer())
        assert [record.file for record in summary.failed] == ["q.webp"]
        assert "q.webp.png exists; choose another name" in summary.failed[0].error
        assert files(output) == ["q.png", "q.webp.png", "r.png"]
        assert {name: (output / name).read_bytes() for name in before} == before

    def test_the_version_is_in_the_records_and_not_in_the_photos(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        first, second = (
            dataclasses.replace(Inverter().recoverer(), version=version) for version in "12"
        )
        recover_folder(source, output, first)
        assert lines(output)["a.png"]["weights"] == "net 1"
        with Image.open(output / "a.png") as photo:
            assert photo.text["Weights"] == "net"
        assert recover_folder(source, output, first).present == 1
        with pytest.raises(UserError, match="holds results of net 1: choose another folder"):
            recover_folder(source, output, second)

    @pytest.mark.parametrize("other", [("other", ""), ("net", "--strength 0.5")])
    def test_two_networks_do_not_share_a_folder(
        self, other: tuple[str, str], tmp_path: Path
    ) -> None:
        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        recover_folder(source, output, Inverter().recoverer())
        with pytest.raises(UserError, match="holds results of net: choose another folder"):
            recover_folder(source, output, Inverter().recoverer(*other))
        summary = recover_folder(source, output, Inverter().recoverer(*other), overwrite=True)
        assert (summary.recovered, summary.present) == (1, 0)
        assert lines(output)["a.png"]["weights"] == other[0]

    def test_overwriting_does_all_of_them_again(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
        output.mkdir()
        (output / "a.png").write_text("mine")
        assert recover_folder(source, output, Inverter().recoverer()).recovered == 1
        assert (output / "a.png").read_text() == "mine"
        assert recover_folder(source, output, Inverter().recoverer(), overwrite=True).recovered == 2
        assert (output / "a.png").read_bytes().startswith(b"\x89PNG")


class TestRefused:
    def test_a_folder_without_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has no pictures: give a folder of portraits"):
            recover_folder(tmp_path, tmp_path / "out", Inverter().recoverer())
        assert not (tmp_path / "out").exists()

    def test_the_folder_of_the_portraits_itself(self, tmp_path: Path) -> None:
        source = touch(tmp_path / "in", "a.png")
        with pytest.raises(UserError, match="is the folder of the portraits"):
            recover_folder(source, tmp_path / "x" / ".." / "in", Inverter().recoverer())
        assert files(source) == ["a.png"]

    def test_records_of_another_program(self, tmp_path: Path) -> None:
        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        output.mkdir()
        (output / RECORDS).write_text('{"score": 1}\n{"score": 2}\n')
        with pytest.raises(UserError, match=r"line 1 of .* is no record of a photo"):
            recover_folder(source, output, Inverter().recoverer())
        assert (output / RECORDS).read_text() == '{"score": 1}\n{"score": 2}\n'

    @pytest.mark.parametrize(
        "content",
        ['{"score": 1}\n', '{"score": 1}', '{"file": "a.png"}', "epoch 1", "epoch 1\n", "7", "\n"],
    )
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_one_line_of_another_program(
        self, overwrite: bool, content: str, tmp_path: Path
    ) -> None:
        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        output.mkdir()
        (output / RECORDS).write_text(content)
        with pytest.raises(UserError, match=r"line 1 of .* is no record of a photo"):
            recover_folder(source, output, Inverter().recoverer(), overwrite)
        assert (output / RECORDS).read_text() == content
        assert files(output) == []

    @pytest.mark.parametrize("late", [False, True])
    def test_a_disk_that_is_full_for_the_records(
        self, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the line itself, or as late as when it is brought to the disk."""

        class Full(io.StringIO):
            def fail(self, *_: object) -> None:
                raise OSError(28, "No space left on device")

            writelines = io.StringIO.writelines if late else fail
            write = io.StringIO.write if late else fail
            close = flush = fail if late else io.StringIO.close

        whole = Path.open

        def open_full(path: Path, mode: str = "r", **options: object) -> object:
            return Full() if mode == "a" else whole(path, mode, **options)

        source, output = touch(tmp_path / "in", "a.png"), tmp_path / "out"
        monkeypatch.setattr(Path, "open", open_full)
        message = f"{output / RECORDS} cannot be written: No space left on device"
        with pytest.raises(UserError, match=re.escape(message)):
            recover_folder(source, output, Inverter().recoverer())
        monkeypatch.undo()
        assert files(output) == ["a.png"]
        summary = recover_folder(source, output, Inverter().recoverer())
        assert (summary.recovered, summary.present) == (0, 1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_count_rate_and_what_is_left(self) -> None:
        progress = folders.Progress(100, None)
        progress.advance(40)
        text = progress.text(progress.started + 8)
        assert text == "40 of 100 pictures, 5.0 a second, 0:12 left"

    def test_a_terminal_has_one_line_that_changes(self, tmp_path: Path) -> None:
        source = touch(tmp_path / "in", "a.png", "b.png", "c.png")
        stream = Terminal()
        recover_folder(source, tmp_path / "out", Inverter().recoverer(size=2), stream=stream)
        text = stream.getvalue()
        assert "2 of 3 pictures" in text and "3 of 3 pictures" in text
        assert "\n" not in text
        assert text.endswith("\r\033[K")

    def test_a_file_has_a_line_in_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = touch(tmp_path / "in", "a.png", "b.png")
        stream = io.StringIO()
        recover_folder(source, tmp_path / "out", Inverter().recoverer(size=1), stream=stream)
        assert stream.getvalue() == ""
        monkeypatch.setattr(folders, "REPORT_EVERY", 0.0)
        recover_folder(source, tmp_path / "more", Inverter().recoverer(size=1), stream=stream)
        assert len(stream.getvalue().splitlines()) == 2
