"""Roll-outs as a person sees them: how far each is, who has it, who came back, and why."""

from typing import Any

from sqlalchemy import Connection

from outpost.dashboard import node as one_node
from outpost.gateway import rollouts, views

SHOWN = 12
# how a target's state is shown: its share of the bar, in this order
BAR = ("kept", "trial", "fetching", "waiting", "withdrawn", "refused", "undone")
STATES = {"waiting": "waits", "fetching": "is fetching it", "withdrawn": "not offered any more",
          "trial": "on trial", "kept": "kept it", "refused": "refused it",
          "undone": "went back to the model before"}
SAID = {"canary": "on its canaries", "rest": "on its way to all", "done": "done",
        "stopped": "stopped"}


def told(db: Connection) -> dict[str, Any]:
    """Return the newest roll-outs, the newest first."""
    found = [rollouts.summary(db, number) for number in views.newest_rollouts(db, SHOWN)]
    asked = {one["node"] for each in found for one in each["nodes"]}
    now_has = views.models_of(db, asked, one_node.model_label)
    return {"rollouts": [_told(one, now_has) for one in found]}


def _told(one: dict[str, Any], now_has: dict[int, str]) -> dict[str, Any]:
    nodes = [node | {"said": STATES[node["state"]], "has": now_has.get(node["node"], ""),
                     "percent": round(100 * node["have"] / node["bytes"]) if node["bytes"]
                     else 0} for node in one["nodes"]]
    total = len(nodes)
    bar = [(state, one[state], 100 * one[state] / total) for state in BAR if one[state]]
    back = [node for node in nodes if node["state"] in ("refused", "undone")]
    return one | {"total": total, "nodes": nodes, "bar": bar, "back": back,
                  "said": SAID[one["state"]], "running": one["state"] in rollouts.RUNNING,
                  "canaries": sum(node["canary"] for node in nodes)}
