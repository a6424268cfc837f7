"""Paired differences: known ones are found, files that do not match are refused."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.compare import compare, main
from face_destyle import UserError

STYLES = ("wave", "candy")
COLUMNS = ("style", "photo", "recovered_psnr")


def scores(path: Path, photos: int = 40, gain: float = 0.0, **changed: object) -> Path:
    """Scores in the form of `train.evaluate --scores`; candy is 4 dB above wave."""
    style = np.array([name for name in STYLES for _ in range(photos)])
    photo = np.array([f"test-{i:06d}" for i in range(photos)] * 2)
    base = np.random.default_rng(0).normal(20, 2, photos)
    psnr = np.concatenate([base, base + 4]) + gain * np.where(style == "candy", 3, 1)
    content = {
        "style": style,
        "photo": photo,
        "recovered_psnr": psnr.astype(np.float32),
        "recovered_ssim": (psnr / 40).astype(np.float32),
        "recovered_rank1": np.ones(len(style)),
    }
    np.savez_compressed(path, **(content | changed))
    return path


def test_a_known_difference_is_found(tmp_path: Path) -> None:
    ours, rival = scores(tmp_path / "a.npz", gain=0.5), scores(tmp_path / "b.npz")
    psnr, ssim = compare(ours, rival, [])
    assert (psnr.measure, psnr.photos, ssim.measure) == ("psnr", 40, "ssim")
    assert psnr.mean == pytest.approx(1.0, abs=1e-5)  # of 0.5 and 1.5 dB
    assert ssim.mean == pytest.approx(1 / 40, abs=1e-5)
    assert psnr.ours - psnr.rival == pytest.approx(psnr.mean)
    assert compare(ours, rival, ["wave"])[0].mean == pytest.approx(0.5, abs=1e-5)
    assert compare(ours, rival, ["candy", "wave"])[0].mean == pytest.approx(1.0, abs=1e-5)


def test_the_interval_is_over_photos(tmp_path: Path) -> None:
    """Per photo one number: half a thousand of standard deviation 1 leave 0.044 of error."""
    noise = np.random.default_rng(1).normal(0, 1, 500)
    # The same error in both styles: taken as 1000 independent rows the interval would be narrower.
    both = np.concatenate([noise, noise])
    rival = scores(tmp_path / "b.npz", photos=500)
    with np.load(rival) as file:
        psnr = file["recovered_psnr"] + both
    ours = scores(tmp_path / "a.npz", photos=500, recovered_psnr=psnr)
    found = compare(ours, rival, [])[0]
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * noise.std() / 500**0.5, rel=0.1)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    rival = scores(tmp_path / "b.npz")
    plain = scores(tmp_path / "a.npz", gain=0.5)
    with np.load(plain) as file:
        shuffled = {name: file[name][::-1] for name in file.files}
    np.savez_compressed(tmp_path / "c.npz", **shuffled)
    assert compare(tmp_path / "c.npz", rival, []) == compare(plain, rival, [])


def test_what_both_files_have(tmp_path: Path) -> None:
    """The shorter file has the first photos of the longer one, whose first 20 rows are these."""
    whole, part = scores(tmp_path / "a.npz", gain=0.5), scores(tmp_path / "b.npz", photos=20)
    with np.load(whole) as file, np.load(part) as short:
        psnr = {(s, p): v for s, p, v in zip(*map(file.__getitem__, COLUMNS), strict=True)}
        rows = zip(short["style"], short["photo"], strict=True)
        expected = np.mean([psnr[row] for row in rows]) - short["recovered_psnr"].mean()
    for ours, rival, sign in ((whole, part, 1), (part, whole, -1)):
        found = compare(ours, rival, [], common=True)[0]
        assert found.photos == 20
        assert found.mean == pytest.approx(sign * expected, abs=1e-4)
    others = scores(tmp_path / "c.npz", photo=np.array([f"else-{i}" for i in range(80)]))
    with pytest.raises(UserError, match="no portrait in common"):
        compare(whole, others, [], common=True)


def test_the_printed_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, rival = scores(tmp_path / "a.npz", gain=0.5), scores(tmp_path / "b.npz")
    assert main([str(ours), str(rival), "--style", "wave"]) == 0
    title, psnr, ssim = capsys.readouterr().out.splitlines()
    assert title.startswith("wave; 40 photos")
    assert psnr.startswith("PSNR: ") and "= +0.500 dB, 95 % interval [+0.500, +0.500]" in psnr
    assert ssim.startswith("SSIM: ") and "= +0.0125, 95 %" in ssim


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = scores(tmp_path / "a.npz")
    (tmp_path / "text.npz").write_text("no scores")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(ours.read_bytes()[:500])
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", style=np.array(["wave"]))
    scores(tmp_path / "fewer.npz", photos=39)
    scores(tmp_path / "renamed.npz", photo=np.array([f"x-{i}" for i in range(40)] * 2))
    scores(tmp_path / "twice.npz", photo=np.array(["x"] * 80))
    cases = {
        "absent.npz": "absent.npz",
        "text.npz": "text.npz cannot be read",
        "empty.npz": "empty.npz cannot be read",
        "cut.npz": "cut.npz cannot be read",
        "single.npy": "single.npy cannot be read",
        "other.npz": "has no photo",
        "fewer.npz": "not of the same portraits",
        "renamed.npz": "not of the same portraits",
        "twice.npz": "a portrait twice",
    }
    for name, said in cases.items():
        assert main([str(ours), str(tmp_path / name)]) == 2, name
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1 and said in captured.err
    assert main([str(ours), str(ours), "--style", "cubist"]) == 2
    assert "cubist; there are candy, wave" in capsys.readouterr().err
