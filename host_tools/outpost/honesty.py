"""What a model's figures rest on: recordings and windows by class and side, and the split.

That no recording, no group and no stretch of samples is on both sides is data.check_leakage's
business: what leaks is refused and never gets here.
"""

from dataclasses import dataclass

import numpy as np

from outpost.build import Fitted

FEW = 5  # held-out groups of a class, below which its share is hardly a figure
UNEVEN = 5  # times as many training windows of one class as of another


@dataclass(frozen=True)
class Class:
    """How much there is of one class: groups (files, subjects, blocks) and windows by side."""

    label: str
    groups_train: int
    groups_test: int
    windows_train: int
    windows_test: int


@dataclass(frozen=True)
class Splits:
    """How the recordings were split, and what is to be said about that."""

    by: str
    classes: list[Class]
    warnings: list[str]


def splits(fitted: Fitted) -> Splits:
    """Return what each side of a trained model's data holds."""
    dataset = fitted.dataset
    every = [*dataset.train, *dataset.test]
    by = ("as published" if all(one.part for one in every) else
          "by subject" if all(one.group.startswith("subject ") for one in every) else
          "by recording" if len({one.group for one in every}) == len(every) else "by file")
    found = []
    for i, label in enumerate(dataset.classes):
        counts: list[int] = []
        for recordings, windows in ((dataset.train, fitted.train), (dataset.test, fitted.test)):
            here = np.unique(windows.recording[windows.y == i])
            counts += [len({recordings[j].group for j in here}), int((windows.y == i).sum())]
        found.append(Class(label, counts[0], counts[2], counts[1], counts[3]))
    return Splits(by, found, list(_warnings(found)))


def _warnings(classes: list[Class]) -> list[str]:
    told = []
    most = max(classes, key=lambda one: one.windows_train)
    least = min(classes, key=lambda one: one.windows_train)
    if most.windows_train > UNEVEN * least.windows_train:
        told.append(f"{most.label} has {most.windows_train} training windows, {least.label} "
                    f"{least.windows_train}: look at the worst class, not at the accuracy")
    few = [one for one in classes if one.groups_test < FEW]
    if few:
        names = ", ".join(f"{one.label} ({one.groups_test})" for one in few)
        told.append(f"fewer than {FEW} held-out groups: {names}; one recording more or less "
                    "moves their share a lot")
    return told
