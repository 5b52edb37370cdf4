"""Show: how does an answer look to a person?

Every function takes the JSON answer of a verb and returns something that rich can print, so that the two can never disagree.
Tables fit 80 columns: names fold rather than being cut, columns of nothing but zeros are left out, numbers stand to the right.

    assetcore.cli.show.contents   what there is: ls show diff search export
    assetcore.cli.show.graphs     what is made of what: graph lineage, and the same for other programs
    assetcore.cli.show.stale      what must be made, why, what it would take: plan why accept
    assetcore.cli.show.ran        what was done: materialize runs trace history run deploy
    assetcore.cli.show.trust      whether all is well: verify gc catalog journal forget
    assetcore.cli.show.platform   services, settings, environments
    assetcore.cli.show.parts      what all of these are built of: texts, tables, numbers
"""

from __future__ import annotations

from assetcore.cli.show.contents import assets, comparison, context, documents, exported, found
from assetcore.cli.show.graphs import dot, graph, graphml, lineage, mermaid, openlineage
from assetcore.cli.show.parts import Column, Text, counted, duration, moment, plural, table, words
from assetcore.cli.show.platform import (
    checked,
    environment_diff,
    environments,
    initialised,
    kept,
    promoted,
    services,
    settings,
)
from assetcore.cli.show.ran import conducted, deployment, history, outcome, run, runs, trace
from assetcore.cli.show.stale import accepted, causes, plan, plan_sentence, why
from assetcore.cli.show.trust import compared, forgotten, garbage, journal, journal_checked, rebuilt, verified

__all__ = [
    "Column", "Text", "accepted", "assets", "causes", "checked", "compared", "comparison", "conducted", "context", "counted",
    "deployment", "documents", "dot", "duration", "environment_diff", "environments", "exported", "forgotten", "found", "garbage",
    "graph", "graphml", "history", "initialised", "journal", "journal_checked", "kept", "lineage", "mermaid", "moment", "openlineage",
    "outcome", "plan", "plan_sentence", "plural", "promoted", "rebuilt", "run", "runs", "services", "settings", "table", "trace",
    "verified", "why", "words",
]  # fmt: skip
