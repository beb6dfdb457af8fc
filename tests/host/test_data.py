"""Recordings: what is read, what is refused and with which words, and that splits don't leak."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost import data, recipe
from outpost.data import DataError, Recording

TOML = """
[model]
name = "mine"
version = 1
[data]
path = "rec"
[signal]
rate_hz = 50
window = 20
hop = 10
[signal.channels]
x = "count"
y = { unit = "V", lsb = 0.001 }
[features.channels]
"*" = ["mad"]
"""


@pytest.fixture
def folder(tmp_path):
    """A model.toml, and six sound recordings of each of two classes at 50 Hz."""
    (tmp_path / "model.toml").write_text(TOML)
    (tmp_path / "rec").mkdir()
    for label in ("walk", "rest"):
        for k in range(6):
            write(tmp_path / "rec" / f"{label}_{k}.csv", k)
    return tmp_path


def write(path, seed, rows=60, step_ms=20, header="time_ms,x,y"):
    values = np.random.default_rng([seed, len(path.name), ord(path.name[0])]).normal(0, 99, rows)
    path.write_text(header + "\n" + "".join(f"{step_ms * i},{v:.2f},{v / 1000:.5f}\n"
                                            for i, v in enumerate(values)))


def load(folder):
    return data.load(recipe.load(folder / "model.toml"))


def change(path, line, old, new):
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))


def test_a_folder_of_csv_files(folder):
    dataset = load(folder)
    assert dataset.classes == ("rest", "walk") and not dataset.warnings
    assert len(dataset.train) == 8 and len(dataset.test) == 4
    recording = next(r for r in (*dataset.train, *dataset.test) if r.name == "walk_3.csv")
    text = (folder / "rec" / "walk_3.csv").read_text().splitlines()[5].split(",")
    assert recording.samples.dtype == np.int16 and recording.samples.shape == (60, 2)
    assert recording.samples[4].tolist() == [round(float(text[1])), round(float(text[2]) / 0.001)]


def test_columns_may_stand_in_any_order(folder):
    straight = load(folder)
    for path in (folder / "rec").iterdir():
        rows = [line.split(",") for line in path.read_text().splitlines()]
        text = "\r\n".join(f"{y},{t},{x}" for t, x, y in rows)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    turned = load(folder)
    for one, other in zip(straight.train + straight.test, turned.train + turned.test, strict=True):
        assert (one.samples == other.samples).all()


def test_a_label_column_cuts_a_file_but_keeps_it_on_one_side(folder):
    for path in (folder / "rec").iterdir():
        lines = path.read_text().splitlines()
        path.write_text(lines[0] + ",label\n" + "".join(
            f"{line},{'up' if i < 30 else 'down'}\n" for i, line in enumerate(lines[1:])))
    dataset = load(folder)
    assert dataset.classes == ("down", "up")
    assert {r.name for r in dataset.train} >= {f"{r.group} lines 2-31" for r in dataset.train}
    assert len(dataset.train) == 16 and len(dataset.test) == 8
    assert not {r.group for r in dataset.train} & {r.group for r in dataset.test}


BAD = {
    "ragged": (lambda f: change(f, 7, "100,", "100,5,"), r"line 7: 4 columns, the header has 3"),
    "nan": (lambda f: change(f, 7, "100,", "nan,"), r"line 7: time_ms is 'nan', not a number"),
    "infinite": (lambda f: change(f, 2, "0,", "inf,"), r"line 2: time_ms is 'inf', not a number"),
    "word": (lambda f: change(f, 9, ",", ",hello"), r"line 9: x is 'hello.*', not a number"),
    "missing column": (lambda f: change(f, 1, ",y", ",z"),
                       r"line 1: wrong columns, missing: 'y'; not in model.toml: 'z'. Expected "
                       r"time_ms,x,y"),
    "column twice": (lambda f: change(f, 1, ",y", ",y,y"), r"line 1: wrong columns, twice: 'y'"),
    "gap": (lambda f: f.write_text("\n".join(f.read_text().split("\n")[:31])
                                   + "\n\n640,1,1\n660,1,1\n"),
            r"line 33: 60 ms after the sample before, where 20 ms is usual"),
    "backwards": (lambda f: change(f, 9, "140,", "120,"), r"line 9: time_ms goes from 120 to 120"),
    "another rate": (lambda f: write(f, 1, step_ms=10),
                     r"line 2: sampled at 100 Hz, but .* 50 Hz"),
    "empty": (lambda f: f.write_text(""), r"empty, or not UTF-8 text"),
    "binary": (lambda f: f.write_bytes(bytes(range(256))), r"empty, or not UTF-8 text"),
    "one row": (lambda f: write(f, 1, rows=1), r"1 rows; a recording needs at least two"),
    "empty label": (lambda f: write(f, 1, header="time_ms,x,label"), r"line 1: wrong columns"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_told_by_file_and_line(folder, fault):
    spoil, words = BAD[fault]
    path = folder / "rec" / "walk_2.csv"
    spoil(path)
    with pytest.raises(DataError, match=words) as caught:
        load(folder)
    assert str(path) in str(caught.value)


def test_no_label(folder):
    (folder / "rec" / "walk_2.csv").rename(folder / "rec" / "walk.csv")
    with pytest.raises(DataError, match=r"walk.csv line 1: no label: add a label column"):
        load(folder)


def test_empty_label(folder):
    for path in (folder / "rec").iterdir():
        path.write_text(path.read_text().replace("\n", ",a\n").replace("y,a", "y,label", 1))
    change(folder / "rec" / "rest_0.csv", 5, ",a", ",")
    with pytest.raises(DataError, match=r"rest_0.csv line 5: the label is empty"):
        load(folder)


def test_empty_and_absent_folders(folder):
    for path in (folder / "rec").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"rec: no \.csv or \.npz files in it"):
        load(folder)
    (folder / "rec").rmdir()
    with pytest.raises(DataError, match=r"rec: no such folder"):
        load(folder)


def test_a_class_with_one_recording(folder):
    for k in range(1, 6):
        (folder / "rec" / f"walk_{k}.csv").unlink()
    with pytest.raises(DataError, match=r"rec: class .walk. has 1 recording \(walk_0.csv\); it"):
        load(folder)


def test_one_class(folder):
    for k in range(6):
        (folder / "rec" / f"walk_{k}.csv").unlink()
    with pytest.raises(DataError, match=r"all recordings are 'rest'"):
        load(folder)


def test_a_copy_on_the_other_side_is_found(folder):
    source = (folder / "rec" / "walk_0.csv").read_text()
    for k in range(1, 6):
        (folder / "rec" / f"walk_{k}.csv").write_text(source)
    with pytest.raises(DataError, match=r"rec: .* are the same recording"):
        load(folder)


def test_samples_beyond_the_range_saturate_and_are_counted(folder):
    path = folder / "rec" / "walk_2.csv"
    lines = path.read_text().splitlines()
    lines[6] = "100,-99999.0,1e300"
    path.write_text("\n".join(lines))
    dataset = load(folder)
    recording = next(r for r in (*dataset.train, *dataset.test) if r.name == "walk_2.csv")
    assert recording.samples[5].tolist() == [-32768, 32767]
    assert dataset.warnings == [
        f"{name}: 1 sample beyond the sensor's range (first in walk_2.csv), clipped as the sensor "
        "would" for name in ("x", "y")]


def test_short_recordings_are_left_out_loudly(folder):
    write(folder / "rec" / "walk_2.csv", 1, rows=19)
    assert load(folder).warnings == ["1 recording left out, shorter than the window of 20 "
                                     "samples: walk_2.csv (19)"]
    for path in (folder / "rec").iterdir():
        write(path, 1, rows=19)
    with pytest.raises(DataError, match="rec: every recording is shorter than the window"):
        load(folder)


def test_a_class_of_short_recordings_only(folder):
    for k in range(6):
        write(folder / "rec" / f"rest_{k}.csv", k, rows=19)
    with pytest.raises(DataError, match=r"rec: class 'rest' .* shorter than the window of 20"):
        load(folder)


def test_an_ending_in_capitals_is_no_reason_to_pass_a_file_over(folder):
    path = folder / "rec" / "walk_3.csv"
    path.rename(path.with_suffix(".CSV"))
    dataset = load(folder)
    assert "walk_3.CSV" in {r.name for r in (*dataset.train, *dataset.test)}


@pytest.fixture
def npz(folder):
    """The folder with one .npz instead; returns a function that writes it."""
    for path in (folder / "rec").iterdir():
        path.unlink()
    arrays = {"X": np.random.default_rng(1).normal(0, 99, (12, 2, 60)),
              "y": np.array(["a", "b"] * 6), "rate_hz": 50}

    def save(**changed):
        np.savez(folder / "rec" / "all.npz",
                 **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
        return load(folder)

    save.X = arrays["X"]
    return save


def test_npz(npz):
    dataset = npz()
    assert dataset.classes == ("a", "b") and len(dataset.train) == 8 and len(dataset.test) == 4
    first = next(r for r in (*dataset.train, *dataset.test) if r.name == "all.npz recording 0")
    assert (first.samples[:, 0] == np.rint(npz.X[0, 0])).all()
    assert first.samples[0, 1] == np.clip(round(npz.X[0, 1, 0] * 1000), -32768, 32767)
    doubled = npz(rate_hz=100)
    assert doubled.train[0].samples.shape == (30, 2)


def nan_at(recording, channel, sample):
    x = np.zeros((12, 2, 60))
    x[recording, channel, sample] = np.nan
    return x


@pytest.mark.parametrize(("changed", "words"), [
    ({"X": np.zeros((12, 3, 60))}, r"X is \(12, 3, 60\) and y \(12,\); .*2 channels: x, y"),
    ({"y": np.zeros(11)}, r"y \(11,\)"), ({"y": None}, r"no array y"),
    ({"X": nan_at(3, 1, 7)}, r"X\[3, 1, 7\] \(y\) is nan"),
    ({"X": np.full((12, 2, 60), "a")}, r"X is of type"),
    ({"X": np.full((12, 2, 60), None)}, r"not an .npz file of plain arrays"),
    ({"X": np.zeros((0, 2, 60)), "y": np.zeros(0)}, r"rec: no recordings in its files"),
    ({"rate_hz": None}, r"no rate: give \[data\] rate_hz"), ({"rate_hz": 0}, r"rate_hz is 0"),
])
def test_bad_npz(npz, changed, words):
    with pytest.raises(DataError, match=words):
        npz(**changed)


# -- what ships -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def motion():
    what = recipe.load(recipe.find("motion"))
    return what, data.load(what)


def test_basic_motions(motion):
    what, dataset = motion
    assert dataset.classes == ("Standing", "Running", "Walking", "Badminton")
    assert len(dataset.train) == len(dataset.test) == 40 and not dataset.warnings
    for recording in (*dataset.train, *dataset.test):
        assert recording.samples.shape == (125, 6) and recording.samples.dtype == np.int16
    path = data.cache.root() / "data" / "aeon-1.6.0" / "BasicMotions_TRAIN.ts"
    (raw, label), *_ = data.parse_ts(path)[1]
    assert raw.shape == (100, 6) and label == "Standing"
    # 4 samples of the source are 5 of the sensor's: the first of them coincide, in the middle
    # of the recording, up to the filter's ripple
    counts = raw[40:60:4, 0] / 9.80665 / 0.000122
    error = np.abs(dataset.train[0].samples[50:75:5, 0] - counts)
    assert error.max() < 0.15 * np.abs(counts).max()


def test_windows(motion):
    what, dataset = motion
    cut = data.windows(dataset.test, dataset.classes, 64, 30)
    assert cut.x.shape == (120, 64, 6) and cut.x.dtype == np.int16
    assert (cut.x[4] == dataset.test[1].samples[30:94]).all() and cut.recording[4] == 1
    assert [dataset.classes[i] for i in cut.y] == [r.label for r in dataset.test for _ in range(3)]


def test_digits():
    dataset = data.load(recipe.load(recipe.find("digits")))
    assert dataset.classes == tuple("0123456789")
    assert (len(dataset.train), len(dataset.test)) == (1258, 539)
    assert dataset.train[0].samples.shape == (64, 1)


def test_basic_motions_needs_six_channels(motion):
    what = replace(motion[0], signal=replace(motion[0].signal,
                                             channels=motion[0].signal.channels[:3]))
    with pytest.raises(DataError, match=r"6 channels .* names 3"):
        data.load(what)


def test_declared_classes_must_be_those_of_the_data(motion):
    with pytest.raises(DataError, match=r"classes are Up, Down; the recordings have Standing"):
        data.load(replace(motion[0], classes=("Up", "Down")))


def test_a_broken_ts_file_is_told_by_line(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text("@classLabel true a b\n@data\n1,2:3,4:a\n1,x:3,4:b\n")
    with pytest.raises(DataError, match=r"x.ts line 4"):
        data.parse_ts(path)
    path.write_text("@classLabel true a b\n@data\n1,2:3,4:c\n")
    with pytest.raises(DataError, match=r"x.ts line 3: class 'c' is not in the header \(a, b\)"):
        data.parse_ts(path)


def test_a_failed_download_says_so_and_leaves_nothing(tmp_path, monkeypatch, motion):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "AEON_SHA256", "0" * 64)
    with pytest.raises(DataError, match="pip could not download aeon"):
        data.load(motion[0])
    assert not list((tmp_path / "outpost" / "data").iterdir())


# -- resampling and splits --------------------------------------------------------------------


def test_resampling_keeps_what_both_rates_carry_and_drops_the_rest():
    t = np.arange(1000) / 100
    slow, fast = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * 20 * t)
    down = data.resample(np.stack([slow, fast], axis=1), 100, 12.5)
    assert down.shape == (125, 2)
    wanted = np.sin(2 * np.pi * 2 * np.arange(125) / 12.5)
    assert np.abs(down[10:-10, 0] - wanted[10:-10]).max() < 0.05
    assert np.abs(down[10:-10, 1]).max() < 0.05  # 20 Hz would fold to 5 Hz


def recordings(groups):
    return [Recording(f"{group}.{i}", label, np.zeros((1, 1)), None, group)
            for group, labels in groups.items() for i, label in enumerate(labels)]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4),
                       st.lists(st.sampled_from("XYZ"), min_size=1, max_size=3), min_size=2,
                       max_size=30), st.integers(0, 99))
def test_splits_never_part_a_group(groups, seed):
    every = recordings(groups)
    try:
        train, test = data.split(every, 0.3, seed)
    except DataError:
        return  # a class would be missing on one side
    assert sorted(r.name for r in train + test) == sorted(r.name for r in every)
    assert {r.label for r in train} == {r.label for r in test} == {r.label for r in every}
    assert not {r.group for r in train} & {r.group for r in test}
    data.check_leakage(train, test)
    assert data.split(every, 0.3, seed) == (train, test)


def test_leakage_is_refused():
    train, test = recordings({"a": "XY", "b": "X"}), recordings({"b": "Y"})
    with pytest.raises(DataError, match="b is in both the training and the test split"):
        data.check_leakage(train, test)


def stretch(name, start, length, source, rate_hz=50.0):
    return Recording(name, "X", source[start:start + length], rate_hz, name)


def test_recordings_that_overlap_are_refused_wherever_the_cut_is():
    source = np.random.default_rng(3).integers(-99, 99, (400, 2)).astype(np.int16)
    for cut in (0, 7, 33, 150):
        train, test = [stretch("a", 0, 200, source)], [stretch("b", cut + 10, 200, source)]
        with pytest.raises(DataError, match=r"b \(test\) and a \(train\) overlap: samples \d+ to"):
            data.check_leakage(train, test, 20)
    data.check_leakage([stretch("a", 0, 200, source)], [stretch("b", 200, 200, source)], 20)


def test_a_sensor_at_rest_is_no_leak():
    """Constant stretches are alike everywhere; that is not the same recording."""
    still = np.zeros((300, 2), np.int16)
    still[::40] = 3
    train, test = [stretch("a", 0, 150, still)], [stretch("b", 150, 140, still)]
    data.check_leakage(train, test, 20)
    data.check_leakage([stretch("a", 0, 9, still)], [stretch("b", 0, 7, still)], 20)  # short


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_subjects_recordings_stay_on_one_side(folder, kind):
    rng = np.random.default_rng(0)
    for path in (folder / "rec").glob("*.csv"):
        path.unlink()
    x, y, subjects = [], [], []
    for k in range(12):
        for label in ("walk", "rest"):
            values = rng.normal(0, 99, (2, 60))
            x, y, subjects = [*x, values], [*y, label], [*subjects, f"p{k % 4}"]
            if kind == "csv":
                lines = [f"{20 * i},{a:.2f},{b / 1000:.5f},p{k % 4}"
                         for i, (a, b) in enumerate(values.T)]
                (folder / "rec" / f"{label}_{k}.csv").write_text(
                    "time_ms,x,y,subject\n" + "\n".join(lines) + "\n")
    if kind == "npz":
        np.savez(folder / "rec" / "all.npz", X=x, y=y, subject=subjects, rate_hz=50.0)
    dataset = load(folder)
    sides = [{one.group for one in part} for part in (dataset.train, dataset.test)]
    assert len(dataset.train) + len(dataset.test) == 24
    assert sides[0] | sides[1] == {f"subject p{k}" for k in range(4)} and not sides[0] & sides[1]


def test_a_file_of_two_subjects_is_refused(folder):
    path = folder / "rec" / "walk_0.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",subject", *(line + f",p{i > 9}" for i, line in
                                                        enumerate(lines[1:]))]) + "\n")
    with pytest.raises(DataError, match="walk_0.csv: subjects 'pFalse', 'pTrue' in one file"):
        load(folder)
