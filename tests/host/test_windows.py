"""Windows that nodes were unsure about: kept whole, answered by heavy, labelled, trained on."""

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from gateways import enrolled, gateway
from typer.testing import CliRunner

from node import record, summary
from node.batch import Batch
from node.frame import Seal
from node.outbox import DIAGNOSTIC, TELEMETRY
from outpost import build, data, heavy, recipe
from outpost.cli import app
from outpost.gateway import schema, store, windows
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol
from outpost.gateway.windows import WindowError

NODE, EPOCH, TIME = 7, 40, 1_767_600_000
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def motion():
    return recipe.load(recipe.find("motion"))


@pytest.fixture(scope="module")
def fitted(motion):
    return build.fit(motion)


@pytest.fixture
def engine(engine):
    with engine.begin() as db:
        enrol(db, NODE, KEY)
    return engine


def frames(found, lane=DIAGNOSTIC, floor=False):
    """A frame for each (seq, kind, time_s, payload), of which nothing before is known."""
    made, out = Batch(bytearray(1024), NODE, Seal(KEY)), []
    for seq, kind, time_s, payload in found:
        made.begin(lane, EPOCH, seq - 1, floor)
        assert made.add(seq, kind, time_s, payload)
        out.append(bytes(made.buf[:made.end()]))
    return out


def parts(samples, seq, time_s=TIME):
    """The records of a window as the node writes them."""
    return [(seq + i, record.WINDOW, time_s, bytes(payload))
            for i, payload in enumerate(summary.parts(samples))]


def kept(engine):
    with engine.connect() as db:
        return [(one.key, one.samples) for one in windows.newest(db)]


def some(rng, size=768):
    return rng.randbytes(size)


def test_a_window_is_kept_when_its_last_part_has_come_in_any_order(engine):
    desk, rng = Desk(engine, clock=None), random.Random(3)
    samples = [some(rng) for _ in range(6)]
    sent = [one for i, window in enumerate(samples)
            for one in frames(parts(window, 1 + 10 * i, TIME + i))]
    lacking = sent.pop()
    rng.shuffle(sent)
    for one in sent * 2:
        desk.take([one])
    wanted = {(NODE, EPOCH, 1 + 10 * i): window for i, window in enumerate(samples)}
    last = (NODE, EPOCH, 51)
    assert dict(kept(engine)) == {key: one for key, one in wanted.items() if key != last}
    desk.take([lacking, *sent])  # all at once, most of it known
    assert dict(kept(engine)) == wanted and len(kept(engine)) == 6


def test_what_only_looks_like_a_window_is_none(engine):
    first, second, third = parts(bytes(700), 1)
    other = [(2, record.WINDOW, TIME + 9, second[3])]  # of another window: of that, one was lost
    short = [(9, record.WINDOW, TIME, b""), (10, record.WINDOW, TIME, b"\0"),
             (11, record.WINDOW, TIME, b"\x05\x02ab"), (12, record.STATE, TIME, b"\0\1abc")]
    Desk(engine, clock=None).take([*frames([first, third]), *frames(other), *frames(short),
                                   *frames([(1, record.WINDOW, TIME, b"\0\1ab")], TELEMETRY)])
    assert kept(engine) == []


def test_heavy_answers_each_window_of_its_size_once(engine, motion, fitted):
    model = heavy.train(motion, fitted=fitted)
    assert model.accuracy >= 0.975
    sent = fitted.test.x[::10]
    desk = Desk(engine, clock=None)
    for i, window in enumerate(sent):
        desk.take(frames(parts(window.astype("<i2").tobytes(), 1 + 4 * i, TIME + i)))
    desk.take(frames(parts(bytes(100), 1000)))  # of another model
    decision = bytes((2, 102, 2, record.BY_MAIN))
    desk.take(frames([(1, record.DECISION, TIME + 3, decision)], TELEMETRY))
    assert windows.answer(engine, model) == len(sent)
    assert windows.answer(engine, model) == 0
    with engine.connect() as db:
        found = {one.key[2]: one for one in windows.newest(db)}
    said = [found[1 + 4 * i].heavy[0] for i in range(len(sent))]
    right = [model.classes[y] for y in fitted.test.y[::10]]
    assert sum(a == b for a, b in zip(said, right, strict=True)) >= len(right) - 1
    assert all(0.25 <= found[1 + 4 * i].heavy[1] <= 1 for i in range(len(sent)))
    assert found[1000].heavy is None
    assert found[13].decided == (2, 0.4) and found[17].decided is None
    # another one answers again, and its word counts
    windows.answer(engine, replace(model, name="later", classes=tuple("abcd")))
    with engine.connect() as db:
        assert {one.heavy[0] for one in windows.newest(db) if one.heavy} <= set("abcd")


def test_labels_are_put_on_changed_and_taken_back(engine):
    Desk(engine, clock=None).take(frames(parts(bytes(768), 5)))
    with engine.begin() as db:
        key = windows.key_of(f"{NODE}/{EPOCH}/5")
        for said in ("Walking", "Running"):
            windows.label(db, key, said)
            assert windows.labelled(db) == [(key, bytes(768), said)]
        assert windows.labelled(db, 100) == []
        windows.label(db, key, None)
        assert windows.labelled(db) == []
        for wrong in ((NODE, EPOCH, 6), (8, EPOCH, 5)):
            with pytest.raises(WindowError, match="no window"):
                windows.label(db, wrong, "Walking")
    for wrong in ("", "1/2", "1/2/x", "1/2/-3"):
        with pytest.raises(WindowError, match="NODE/EPOCH/SEQ"):
            windows.key_of(wrong)


def test_what_is_labelled_is_exported_in_the_units_of_recordings(engine, motion, fitted, tmp_path):
    desk, classes = Desk(engine, clock=None), fitted.dataset.classes
    sent = fitted.test.x
    with pytest.raises(WindowError, match="labelled yet"), engine.connect() as db:
        windows.export(db, motion, tmp_path / "none.npz")
    for i, window in enumerate(sent):
        desk.take(frames(parts(window.astype("<i2").tobytes(), 1 + 4 * i, TIME + i)))
    with engine.begin() as db:
        for i, y in enumerate(fitted.test.y):
            windows.label(db, (NODE, EPOCH, 1 + 4 * i), classes[y])
        assert windows.export(db, motion, tmp_path / "field.npz") == len(sent)
    assert list(tmp_path.iterdir()) == [tmp_path / "field.npz"]
    back = data.pulled(motion, tmp_path)
    assert np.array_equal(np.stack([one.samples for one in back]), sent)
    assert [one.label for one in back] == [classes[y] for y in fitted.test.y]
    assert {one.group for one in back} == {f"subject {NODE}"}  # all on one side of a split
    # heavy is trained on them when it starts next, and is then another one
    again = windows.trained(engine, "motion")
    assert again.name != heavy.train(motion, fitted=fitted).name
    assert [label for label, _ in again.answer([one.astype("<i2").tobytes() for one in sent])
            ] == [classes[y] for y in fitted.test.y]


def test_a_label_that_is_no_class_keeps_no_gateway_from_starting(engine, fitted, caplog):
    desk = Desk(engine, clock=None)
    for i, window in enumerate(fitted.test.x[:2]):
        desk.take(frames(parts(window.astype("<i2").tobytes(), 1 + 4 * i, TIME + i)))
    with engine.begin() as db:
        windows.label(db, (NODE, EPOCH, 1), "Walking")
        windows.label(db, (NODE, EPOCH, 5), "Swimming")
    assert windows.trained(engine, "motion").accuracy > 0.9
    assert "1 of 2 labelled windows are none of" in caplog.text


def test_what_is_labelled_is_trained_on_besides_as_a_person_does(motion, fitted, tmp_path):
    database = str(enrolled(tmp_path / "gateway.db", {NODE: KEY}))
    where = store.connect(tmp_path / "gateway.db")
    desk = Desk(where, clock=None)
    sent = [fitted.test.x[0] // 2, fitted.test.x[-1] // 2]
    for i, window in enumerate(sent):
        desk.take(frames(parts(window.astype("<i2").tobytes(), 1 + 4 * i, TIME + i)))
    where.dispose()

    def outpost(*words):
        done = CliRunner().invoke(app, ["windows", "--database", database, *words])
        assert done.exit_code == 0, done.exception
        assert f'[data] also = "{mine}/field"' in done.stderr

    mine = tmp_path / "mine"
    text = motion.file.read_text().replace(
        'source = "aeon:BasicMotions"', 'source = "aeon:BasicMotions"\nalso = "field"')
    mine.mkdir()
    (mine / "model.toml").write_text(text)
    what = recipe.load(mine / "model.toml")
    with pytest.raises(data.DataError, match="field"):
        data.load(what)  # nothing there yet
    outpost("--label", f"{NODE}/{EPOCH}/1=Walking", "--label", f"{NODE}/{EPOCH}/5=Running",
            "--export", str(mine / "field/labelled.npz"))
    found = build.fit(what)
    assert np.array_equal(found.test.x, fitted.test.x)
    assert len(found.train.x) == len(fitted.train.x) + 2
    assert np.array_equal(found.train.x[-2:], np.stack(sent))
    assert [found.dataset.classes[y] for y in found.train.y[-2:]] == ["Walking", "Running"]
    before = data.fingerprint(what)
    outpost("--label", f"{NODE}/{EPOCH}/5=Walking", "--export", str(mine / "field/labelled.npz"))
    assert data.fingerprint(what) != before  # or the build would be taken from the cache
    made = np.load(mine / "field/labelled.npz")
    np.savez(mine / "field/labelled.npz", **{**made, "y": ["Walking", "Swimming"]})
    with pytest.raises(data.DataError, match="Swimming.*there are.*Walking"):
        data.load(what)


def test_what_heavy_is_sure_of_can_be_exported_too(engine, motion, fitted, tmp_path):
    desk = Desk(engine, clock=None)
    for i in range(4):
        desk.take(frames(parts(fitted.test.x[i].astype("<i2").tobytes(), 1 + 4 * i)))
    with engine.begin() as db:
        for i, share in enumerate((0.5, 0.9, 0.95)):
            db.execute(schema.answers.insert(), {
                "node": NODE, "epoch": EPOCH, "seq": 1 + 4 * i, "model": "m", "label": "Running",
                "share": share, "answered_at": 0.0})
        windows.label(db, (NODE, EPOCH, 5), "Walking")  # people know better
        assert windows.export(db, motion, tmp_path / "a.npz", sure=0.9) == 2
    with np.load(tmp_path / "a.npz") as found:
        assert sorted(found["y"]) == ["Running", "Walking"]


@pytest.mark.parametrize("name", ["gait", "digits"])
def test_where_main_is_unsure_heavy_is_right_more_often(name):
    what = recipe.load(recipe.find(name))
    fitted = build.fit(what)
    model = heavy.train(what, fitted=fitted)
    found = fitted.forest.answer(fitted.x_test)
    votes = np.sort(found.votes, axis=1).astype(int)
    unsure = (votes[:, -1] - votes[:, -2]) / votes.sum(axis=1) < 0.2
    said = [label for label, _ in model.answer(
        [one.astype("<i2").tobytes() for one in fitted.test.x[unsure]])]
    right = [model.classes[y] for y in fitted.test.y[unsure]]
    by_heavy = sum(a == b for a, b in zip(said, right, strict=True))
    by_main = int((found.chosen == fitted.test.y)[unsure].sum())
    assert unsure.sum() >= 5 and by_heavy > by_main
    assert model.accuracy >= (found.chosen == fitted.test.y).mean()


def test_a_gateway_with_heavy_and_the_list_of_windows(tmp_path, motion, fitted):
    database = enrolled(tmp_path / "gateway.db", {NODE: KEY})
    engine = store.connect(database)
    with gateway(database, heavy="motion"):
        sent = fitted.test.x[0].astype("<i2").tobytes()
        Desk(engine, clock=None).take(frames(parts(sent, 5)))
        until = time.monotonic() + 120
        while True:
            with engine.connect() as db:
                if windows.newest(db)[0].heavy:
                    break
            assert time.monotonic() < until, "heavy doesn't answer"
            time.sleep(0.1)
    engine.dispose()
    found = listed(database)
    name = f"{NODE}/{EPOCH}/5"
    label = fitted.dataset.classes[fitted.test.y[0]]
    assert found["windows"][0]["window"] == name and found["windows"][0]["label"] is None
    told = listed(database, "--label", f"{name}={label}", "--export", str(tmp_path / "x.npz"))
    assert told["windows"][0]["label"] == label and told["exported"] == 1
    assert listed(database, "--label", f"{name}=")["windows"][0]["label"] is None
    refused = listing(database, "--label", f"{name}=Flying")
    assert isinstance(refused.exception, WindowError)
    assert "there are Standing, Running" in str(refused.exception)


def listing(database, *options):
    return CliRunner().invoke(app, ["windows", "--database", str(database), *options])


def listed(database, *options):
    done = listing(database, "--json", *options)
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout.splitlines()[-1])
