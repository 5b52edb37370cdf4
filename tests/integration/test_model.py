"""Random histories: whatever is edited in whatever order, a run leaves what a build from nothing leaves, and executes only what is new.

The model below is the same project in plain Python: what each unit is given, and what it makes of it. A unit must be executed exactly
when nothing was ever made of the same recipe.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from assetcore import sight, snapshot
from assetcore.settings import Settings
from assetcore.sight import PART
from assetcore.snapshot import FEW
from tests.integration.world import World

pytestmark = [pytest.mark.integration, pytest.mark.no_cover]  # what it runs others run, and it runs it a hundred times

NEVER = 1 << 60
Output = list[tuple[str, str, tuple[Any, ...]]]
"""What a unit makes: name, text, fields."""

CLEAN = {"strip": "text.strip()", "lower": "text.strip().lower()", "squeeze": "' '.join(text.split())"}
MARK = {"dash": "-", "star": "*"}

CODE = """
MARK = {mark!r}

class Cut(BaseModel):
    size: int = 4

@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    text = topic.text
    return Topic(name=topic.name, text={clean})

@asset
async def chunks(cut: Cut, topic: Topic = each(clean)) -> list[Chunk]:
    n = cut.size
    return [Chunk(name=f"part-{{i}}", text=topic.text[k:k + n], ordinal=i) for i, k in enumerate(range(0, len(topic.text), n))]

@asset
def marked(chunk: Chunk = each(chunks)) -> Report:
    return Report(name=chunk.name, text=MARK + chunk.text)

@asset
async def joined(topic: Topic = each(clean), parts: list[Report] = collect(marked, per=clean)) -> Report:
    return Report(name=topic.name, text="".join(part.text for part in parts))

@asset
async def shapes(topic: Topic = each(topics, fields=["text"])) -> Report:
    return Report(name="shape", text=str(len(topic.text)))

@asset
async def ranks(chunks: list[Chunk] = collect(chunks, by="ordinal")) -> Report:
    return Report(name=f"rank-{{chunks[0].ordinal}}", text=" ".join(sorted(c.text for c in chunks)))

@asset(partitions=Static({languages}))
async def spoken(language: str, topic: Topic = each(clean)) -> Report:
    return Report(name=topic.name, text=language + topic.text)

@asset(partitions=Static({languages}))
async def books(spoken: list[Report] = collect(spoken)) -> Report:
    return Report(name="book", text="/".join(one.text for one in spoken))

@asset
async def total({total}) -> Report:
    return Report(name="total", text="|".join(f"{{d.name}}={{d.text}}" for d in first{second}))
"""
TOTALS = {
    "one": ("first: list[Report] = collect(joined)", ""),
    "two": ("first: list[Report] = collect(joined), second: list[Report] = collect(ranks)", " + second"),
}


@dataclass
class Model:
    """The project in plain Python, and every recipe that was ever made."""

    documents: dict[str, str] = field(default_factory=dict)
    clean: str = "strip"
    mark: str = "dash"
    size: int = 4
    total: str = "one"
    seen: dict[str, set[Any]] = field(default_factory=dict)
    spaces: str = ""
    languages: tuple[str, ...] = ("de", "en")

    def code(self) -> str:
        parameters, second = TOTALS[self.total]
        written = CODE.format(
            mark=MARK[self.mark], clean=CLEAN[self.clean], total=parameters, second=second, languages=[*self.languages]
        )
        return "from assetcore import Static\n" + written + self.spaces

    def units(self) -> dict[str, dict[str, tuple[Any, Output]]]:
        """For each asset and unit: its recipe, and what it makes."""

        def clean(text: str) -> str:
            return eval(CLEAN[self.clean], {"text": text})

        found: dict[str, dict[str, tuple[Any, Output]]] = {
            n: {} for n in ("clean", "chunks", "marked", "joined", "shapes", "ranks", "spoken", "books", "total")
        }
        ranks: dict[int, list[tuple[str, str, int]]] = {}
        for name, text in sorted(self.documents.items()):
            page = clean(text)
            found["clean"][name] = ((self.clean, name, text), [(name, page, ())])
            parts = [(f"part-{i}", page[k : k + self.size], i) for i, k in enumerate(range(0, len(page), self.size))]
            found["chunks"][name] = ((self.size, name, page), [(n, t, (i,)) for n, t, i in parts])
            marked = [(n, MARK[self.mark] + t) for n, t, _ in parts]
            for (n, t, i), (_, out) in zip(parts, marked, strict=True):
                found["marked"][f"{name}/{n}"] = ((self.mark, n, t, i), [(n, out, ())])
                ranks.setdefault(i, []).append((n, t, i))
            marked.sort()  # documents of several units are handed over by the names of these: part-10 before part-2
            found["joined"][name] = ((name, page, tuple(marked)), [(name, "".join(t for _, t in marked), ())])
            found["shapes"][name] = ((text,), [("shape", str(len(text)), ())])
        for language in self.languages:
            said = [(name, language + clean(text)) for name, text in sorted(self.documents.items())]
            found["books"][language] = ((language, tuple(said)), [("book", "/".join(t for _, t in said), ())])
            for name, text in said:
                found["spoken"][f"{language}/{name}"] = ((language, name, text), [(name, text, ())])
        for i, members in ranks.items():
            found["ranks"][str(i)] = (tuple(members), [(f"rank-{i}", " ".join(sorted(t for _, t, _ in members)), ())])
        first = [(n, t) for n, (_, out) in sorted(found["joined"].items()) for n, t, _ in out]
        second = (
            [(out[0][0], out[0][1]) for _, (_, out) in sorted(found["ranks"].items())] if self.total == "two" else []
        )
        text = "|".join(f"{n}={t}" for n, t in first + second)
        found["total"]["total"] = ((self.total, tuple(first), tuple(second)), [("total", text, ())])
        return found

    def executions(self) -> dict[str, int]:
        """How many units of each asset must be executed now: recipes never seen. They are seen from now on."""
        counts: dict[str, int] = {}
        for asset, units in self.units().items():
            seen = self.seen.setdefault(asset, set())
            counts[asset] = len({recipe for recipe, _ in units.values()} - seen)
            seen |= {recipe for recipe, _ in units.values()}
        return counts

    def contents(self) -> dict[str, list[tuple[str, bytes]]]:
        return {
            asset: sorted((name, text.encode()) for _, out in units.values() for name, text, _ in out)
            for asset, units in self.units().items()
            if any(out for _, out in units.values())
        }


def edit(model: Model, chance: random.Random) -> str:
    """One random edit, as a user might make it."""
    words = ["alpha", "beta ", " gamma", "Delta", "alpha  beta", "ε"]
    choice = chance.choice(
        [
            "document",
            "document",
            "document",
            "white space",
            "remove",
            "rename",
            "clean",
            "mark",
            "size",
            "total",
            "languages",
            "comment",
            "nothing",
        ]
    )
    names = sorted(model.documents)
    match choice:
        case "document":
            model.documents[chance.choice([*"abcdef"]) + ".txt"] = "".join(
                chance.choices(words, k=chance.randint(0, 4))
            )
        case "white space" if names:
            name = chance.choice(names)
            model.documents[name] = " " + model.documents[name] + "  "
        case "remove" if names:
            del model.documents[chance.choice(names)]
        case "rename" if names:
            model.documents[f"{chance.choice('xyz')}.txt"] = model.documents.pop(chance.choice(names))
        case "clean":
            model.clean = chance.choice([*CLEAN])
        case "mark":
            model.mark = chance.choice([*MARK])
        case "size":
            model.size = chance.choice([3, 4, 7])
        case "total":
            model.total = chance.choice([*TOTALS])
        case "languages":
            model.languages = tuple(chance.sample(["de", "en", "fr"], chance.randint(1, 3)))
        case "comment":
            model.spaces = "\n" * chance.randint(0, 3) + f"# {chance.random()}"
        case _:
            pass
    return choice


def apply(model: Model, world: World) -> None:
    data = world.root / "data"
    data.mkdir(exist_ok=True)
    for path in data.iterdir():
        if path.name not in model.documents:
            path.unlink()
    for name, text in model.documents.items():
        if not (data / name).exists() or (data / name).read_text() != text:
            world.document(name, text)
    world.code(model.code())
    world.config(f"chunks:\n  size: {model.size}\n")


@pytest.mark.parametrize(
    ("seed", "few", "part"),
    [(0, FEW, PART), (1, FEW, PART), (2, 0, PART), (3, 0, PART), (4, 0, 1), (5, FEW, 1), (6, NEVER, 2)],
)
async def test_any_history_of_edits_ends_where_a_build_from_nothing_ends(
    settings: Settings, seed: int, few: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of many random edits, the contents are the model's, and exactly the new recipes were executed.

    With `few` 0, assets are read in slices however many documents differ; the plan is the same as without slices. With a small `part`,
    what is not read in slices is judged and made in parts of so many documents of the source.
    """
    if part != PART:
        monkeypatch.setattr(sight, "PART", part)
        monkeypatch.setattr(sight, "SMALL", -1)
    chance, world, model = random.Random(seed), World(settings), Model({"a.txt": "alpha beta", "b.txt": "gamma"})
    history: list[str] = []
    for _ in range(14):
        apply(model, world)
        monkeypatch.setattr(snapshot, "FEW", NEVER)
        plan = await world.plan()
        monkeypatch.setattr(snapshot, "FEW", few)
        assert await world.plan() == plan, history
        done = await world.made()
        executed = {asset: found.get("made", 0) + found.get("unchanged", 0) for asset, found in done.items()}
        expected = model.executions()
        assert {a: n for a, n in executed.items() if n} == {a: n for a, n in expected.items() if n}, history
        contents = {
            a: sorted((name, text) for (_, name), text in found.items())
            for a, found in (await world.contents()).items()
        }
        contents.pop("topics", None)
        assert contents == model.contents(), history
        assert await world.plan() == {}, history
        history += [edit(model, chance) for _ in range(chance.randint(1, 3))]
