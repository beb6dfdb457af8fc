# New settings, perhaps with a new model, replace the old ones on trial: `trial` in settings.json
# counts the good wakes they need. Until then settings.old is one rename away. A power cut at any
# moment leaves the old settings or the new, whole: docs/model-package.md

import json
import os
import sys

from node import settings
from node.model import FOLDER

TRIAL = 5  # good wakes until what is new is kept
CURRENT = "settings.json"
OLD = "settings.old"
_NEW = "settings.new"


def problem(changes):
    """The number of the rule that the settings with `changes` would break, or None."""
    given = _read(CURRENT)
    given.update(changes)
    return settings.broken(given)


def change(changes):
    """Put `changes` over the settings for good."""
    given = _read(CURRENT)
    given.update(changes)
    _replace(given)


def begin(changes, trial=TRIAL):
    """Put `changes` over the settings, on trial for so many good wakes.

    If others are on trial, what is gone back to is what was before those.
    """
    given = _read(CURRENT)
    if not given.get("trial"):
        _write(OLD, given)
    given.update(changes)
    given["trial"] = trial
    _replace(given)


def keep():
    """The trial went well: the new settings are the settings."""
    given = _read(CURRENT)
    for name in ("trial", "document"):
        given.pop(name, None)
    _replace(given)
    _remove(OLD)
    sweep()


def undo():
    """Back to what was before; False if nothing is on trial."""
    if not _read(CURRENT).get("trial"):
        return False
    os.rename(OLD, CURRENT)
    settings.forget()
    sweep()
    return True


def sweep():
    """Remove the models that neither the settings nor what they replace on trial name."""
    kept = set()
    current = _read(CURRENT)
    for given in (current, _read(OLD)) if current.get("trial") else (current,):
        for spec in (given.get("model"), given.get("large")):
            if spec:
                kept.add(spec["name"])
    try:
        names = os.listdir(FOLDER)
    except OSError:
        return  # this node never had a model
    for name in names:
        stem, _, ending = name.rpartition(".")
        if ending in ("mpy", "golden") and stem not in kept:
            sys.modules.pop(stem, None)  # its memory, where that outlives a wake
            _remove(FOLDER + "/" + name)


def _read(path):
    with open(path) as file:
        return json.loads(file.read())  # load() would read a byte at a time


def _write(path, given):
    with open(path, "w") as file:
        json.dump(given, file)


def _replace(given):
    # A file that is closed is on flash, and a rename over another is one step.
    _write(_NEW, given)
    os.rename(_NEW, CURRENT)
    settings.forget()


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass
