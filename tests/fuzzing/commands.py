"""Configurations, command lines, cards and run folders: something valid with one to three parts replaced by odd ones.

What would only take long (a million epochs) is no fault: where a number costs time, it is small, or absurd.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzzing.judge import Case
from tests.fuzzing.words import (
    ARRAYS,
    CHEAP,
    CONTENT,
    DAMAGED,
    DAMAGES,
    FIELDS,
    FILES,
    GRAPH_FILES,
    IN_JSON,
    KEYS,
    NEAR,
    ODD,
    OF_KEY,
    OF_NODES,
    PREDICT,
    RAW,
    RUN,
    SEARCHES,
    SPACES,
    TENSORS,
    TUNE,
    USES,
)

SIZES = ["1000000", "2147483647", "1000000000000"]
PLENTY = st.one_of(
    st.sampled_from(CHEAP + ODD),
    st.sampled_from(ODD),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.text(max_size=6),
)
COST = {"epochs", "rounds", "seeds", "num_layers", "hidden_channels", "folds", "rehearsals", "trials", "retrain"}
COST |= {"workers", "finalists", "options", "arguments", "counts", "num_nodes", "degree", "num_features", "num_classes"}


NEARLY: dict[str, list[str]] = {}
for entry in NEAR:
    NEARLY.setdefault(entry.partition(": ")[0], []).append(entry.partition(": ")[2])


def values(path: str) -> st.SearchStrategy[str]:
    """Return odd values of a field, and some that are right."""
    name = path.rpartition(".")[2]
    large = SIZES if name in ("num_layers", "hidden_channels") else []
    odd = st.sampled_from(CHEAP + large) if name in COST else PLENTY
    return (
        odd
        if name not in NEARLY
        else st.integers(0, 2).flatmap(lambda far: odd if far == 0 else st.sampled_from(NEARLY[name]))
    )


def some(names: list[str]) -> st.SearchStrategy[list[str]]:
    """Return one to three of some names, mostly one."""
    count = st.sampled_from([1, 1, 1, 2, 2, 3])
    return count.flatmap(lambda most: st.lists(st.sampled_from(names), min_size=most, max_size=most, unique=True))


def document(fields: dict[str, str]) -> str:
    """Write fields as YAML, those of a part beneath its name."""
    lines: dict[str, list[str]] = {}
    for path, value in fields.items():
        head, _, name = path.partition(".")
        lines.setdefault(head, []).append(f"\n  {name}: {value}" if name else f" {value}")
    return "".join(f"{head}:{''.join(held)}\n" for head, held in lines.items())


@st.composite
def changed(draw: st.DrawFn, sound: dict[str, str], names: list[str]) -> dict[str, str]:
    """Replace, or take away, one to three of the fields."""
    fields = dict(sound)
    for name in draw(some(names)):
        if draw(st.integers(0, 9)) == 0:
            fields.pop(name, None)
        else:
            fields[name] = draw(values(name))
    return fields


# --- Configurations

SOUND = [
    {},
    {"regime": "joint"},
    {"regime": "alternate", "rounds": "1"},
    {"regime": "solo", "kd": "uskd"},
    {"kd": "nkd", "teacher": "strong"},
    {"weak.kind": "trees", "strong.kind": "sage"},
    {"regime": "fine-tuned", "strong.kind": "sage"},
    {"regime": "joint", "gate.kind": "learned", "gate.features": "true", "strong.kind": "gat"},
    {"regime": "joint", "gate.kind": "power", "strong.kind": "gin-skip", "mixture": "false"},
]
PLAIN = {"dataset": "good.yaml", "seeds": "1", "epochs": "2", "patience": "2", "folds": "2", "split": "random"}
PLAIN |= {"weak.hidden_channels": "8", "strong.hidden_channels": "8", "lr": "0.01"}


@st.composite
def configurations(draw: st.DrawFn) -> Case:
    """Draw a configuration's file for run or tune."""
    fields = draw(changed(PLAIN | draw(st.sampled_from(SOUND)), FIELDS))
    whole = draw(st.sampled_from(DAMAGED)).format(document(fields))
    name = draw(st.sampled_from(["run", "run", "run", "tune"]))
    rest = ["--out", "o"] if name == "run" else ["--trials", "1", "--retrain", "0", "--study", "s.log"]
    words = [name, "--config", "c.yaml", "--quiet", *rest]
    return Case("configuration", f"write('c.yaml', {whole!r})", f"command({', '.join(map(repr, words))})")


# --- Command lines


@st.composite
def flags(draw: st.DrawFn, names: list[str]) -> list[str]:
    """Draw one to three flags in one of their spellings, right or wrong, with odd values."""
    words: list[str] = []
    for name in draw(some(names)):
        odd = {"search": SEARCHES, "nodes": OF_NODES, "space": ["space.yaml"]}.get(name)
        value = draw(st.one_of(st.sampled_from(odd), PLENTY) if odd else values(name)).replace("\0", "0")
        spelling = (
            "--{}" if draw(st.integers(0, 7)) else draw(st.sampled_from(["-{}", "--no-{}", "--{}+", "--{}x", "{}"]))
        )
        flag = spelling.format(name.replace("_", draw(st.sampled_from("_-"))))
        shape = draw(st.integers(0, 9))
        words += [flag] if shape == 9 else [f"{flag}={value}"] if shape == 8 else [flag, value]
    return words


@st.composite
def command_lines(draw: st.DrawFn) -> Case:
    """Draw a command line of run, tune or predict."""
    name, names = draw(st.sampled_from([("run", RUN + FIELDS), ("tune", TUNE + FIELDS), ("predict", PREDICT)]))
    words = draw(flags(names))
    given = ["copied()"] if name == "predict" else []
    if any("space.yaml" in word for word in words):
        space = draw(st.one_of(st.sampled_from(SPACES), changed({}, FIELDS).map(document)))
        given.append(f"write('space.yaml', {space!r})")
    if any("ids.txt" in word for word in words):
        given.append(f"write('ids.txt', {draw(st.sampled_from(OF_NODES))!r})")
    shown = ", ".join(map(repr, words))
    place = draw(st.sampled_from(["r/seed-0"] * 8 + ["r", "nothing", "", "s-best", "good.yaml", "s.log"]))
    asked = f"command('predict', {place!r}, {shown})" if name == "predict" else f"{name}({shown})"
    return Case("command line", "; ".join(given), asked)


# --- Cards

CARD = {
    "loader": "mowst.data.built_in:sbm",
    "arguments": "{num_nodes: 48, num_features: 6, num_classes: 3, degree: 4, seed: 0}",
    "undirected": "true",
    "splits": "{random: {kind: random, train: 0.5, val: 0.25}}",
    "metric": "accuracy",
    "licence": "MIT",
    "homepage": "here",
}


@st.composite
def cards(draw: st.DrawFn) -> Case:
    """Draw a dataset's card for run."""
    fields = draw(changed(CARD, KEYS))
    for key in sorted(OF_KEY.keys() & fields.keys()):
        if fields[key] != CARD.get(key) and draw(st.booleans()):
            fields[key] = draw(st.sampled_from(OF_KEY[key]))
    for key in [key for key in fields if "." in key]:
        fields.pop(key.partition(".")[0], None)
    whole = draw(st.sampled_from(DAMAGED)).format(document(fields))
    rest = draw(st.sampled_from(["", "", "", "'--split', 'new', ", "'--split', 'file', ", "'--standardize', 'true', "]))
    return Case("card", f"write('card.yaml', {whole!r})", f"run('--dataset', 'card.yaml', {rest}'--out', 'o')")


# --- Folders of runs


@st.composite
def damage(draw: st.DrawFn) -> str:
    """Draw what happens to one file of a run, or of a study."""
    inner = st.sampled_from(FILES).map("r/seed-0/{}".format)
    outer = st.sampled_from(["r/config.yaml", "r/result.json", "r/.mowst.json", "s.log", "s-best/result.json"])
    name, edited = draw(st.one_of(inner, inner, outer)), draw(st.integers(0, 2)) > 0
    place = draw(st.integers(0, 400))
    if edited and name.endswith(".json"):
        return f"edit({name!r}, {place}{draw(st.sampled_from(IN_JSON))})"
    if edited and name.endswith(".safetensors"):
        return f"edit_weights({name!r}, {place}, {draw(st.sampled_from(TENSORS))})"
    if edited and name.endswith(".npz"):
        return f"edit_arrays({name!r}, {draw(st.sampled_from(ARRAYS))})"
    if edited and name.endswith(".yaml"):
        return f"write({name!r}, {document(draw(changed(PLAIN, FIELDS)))!r})"
    return draw(damaged(name))


@st.composite
def damaged(draw: st.DrawFn, name: str) -> str:
    """Draw what happens to a file of any kind."""
    share, place = draw(st.integers(0, 99)) / 100, draw(st.integers(0, 5000))
    content = draw(st.one_of(st.sampled_from(CONTENT), st.text(max_size=20)))
    return draw(st.sampled_from(DAMAGES)).format(name, share, place, content)


@st.composite
def folders(draw: st.DrawFn) -> Case:
    """Draw a run that was damaged, and what is done with it."""
    damages = "; ".join(draw(st.lists(damage(), min_size=1, max_size=2)))
    return Case("run folder", f"copied(); {damages}", draw(st.sampled_from(USES)))


@st.composite
def graph_files(draw: st.DrawFn) -> Case:
    """Draw a graph whose raw files, or what was made of them, were damaged."""
    name = draw(st.sampled_from(GRAPH_FILES))
    change = f"edit_arrays({GRAPH_FILES[0]!r}, lambda a: {draw(st.sampled_from(RAW))})"
    again = "shutil.rmtree('data/Twitch/PT/processed')"
    given = f"{change}; {again}" if draw(st.booleans()) else draw(damaged(name))
    asked = "run('--dataset', 'twitch-pt', '--data-root', 'data', '--regime', 'joint')"
    return Case("files of a graph", f"prepared(); {given}", asked)
