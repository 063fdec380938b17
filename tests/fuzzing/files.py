"""Graph files as they come: sound ones of every kind, ones that cannot be read, and sound ones with damage."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

from tests.fuzzing.judge import Case

N = 24
SECRET = "the secret of another file"


def network(text: bool = True) -> nx.Graph:
    """Two dozen people in a ring, in two groups that their size tells apart."""
    made = nx.cycle_graph(N)
    for node, held in made.nodes(data=True):
        held.update(group="ab"[node % 2], size=node % 2 + node / 100)
    return nx.relabel_nodes(made, lambda node: f"p{node}") if text else made


NODES = "id,size,color,group\n" + "".join(f"{7 * n},{n % 2 + n / 100},{'rgb'[n % 3]},{'ab'[n % 2]}\n" for n in range(N))
EDGES = "source,target,weight\n" + "".join(f"{7 * n},{7 * ((n + 1) % N)},{n % 3 + 1}\n" for n in range(N))


def tables(folder: Path, nodes: str | bytes = NODES, edges: str | bytes = EDGES, suffix: str = ".csv") -> Path:
    for name, text in (("nodes", nodes), ("edges", edges)):
        (folder / f"{name}{suffix}").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def file(name: str, content: str | bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        text = content() if callable(content) else content
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return folder / name

    return make


def written(write: Callable[..., None], graph: nx.Graph) -> bytes:
    held = io.BytesIO()
    write(graph, held)
    return held.getvalue()


GRAPHML, GEXF = (written(write, network()) for write in (nx.write_graphml, nx.write_gexf))
GML = written(nx.write_gml, network())
JSON = json.dumps(nx.node_link_data(network(), edges="links")).encode()
ARRAYS = {
    "x": np.random.default_rng(0).normal(size=(N, 3)) + np.arange(N)[:, None] % 2,
    "edge_index": np.stack([np.arange(N), (np.arange(N) + 1) % N]),
    "y": np.arange(N) % 2,
}


def npz(**arrays: object) -> bytes:
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


def pt(held: object) -> bytes:
    stream = io.BytesIO()
    torch.save(held, stream)
    return stream.getvalue()


def data(**parts: object) -> Data:
    return Data(**{name: torch.as_tensor(array) for name, array in ARRAYS.items()} | parts)


SOUND: dict[str, Callable[[Path], Path]] = {
    "csv": tables,
    "csv with a byte-order mark": lambda folder: tables(folder, "\ufeff" + NODES, "\ufeff" + EDGES),
    "csv with semicolons": lambda folder: tables(folder, NODES.replace(",", ";"), EDGES.replace(",", ";")),
    "tsv": lambda folder: tables(folder, NODES.replace(",", "\t"), EDGES.replace(",", "\t"), ".tsv"),
    "graphml": file("g.graphml", GRAPHML),
    "gexf": file("g.gexf", GEXF),
    "gml": file("g.gml", GML),
    "json": file("g.json", JSON),
    "npz": file("g.npz", npz(**ARRAYS)),
    "pt": file("g.pt", pt(data())),
    "pt of a dictionary": file("g.pt", pt({name: torch.as_tensor(array) for name, array in ARRAYS.items()})),
}


def lines(text: str, place: int, line: str) -> str:
    """Replace one line of a table."""
    rows = text.splitlines()
    rows[place] = line
    return "\n".join(rows) + "\n"


BOMB = '<!DOCTYPE b [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
OUTSIDE = '<!DOCTYPE b [<!ENTITY i SYSTEM "file:///etc/passwd">]>'
REMOTE = '<!DOCTYPE b SYSTEM "http://127.0.0.1:9/x.dtd">'


def entities(xml: bytes, doctype: str, name: bytes = b"a</") -> bytes:
    """Put a document type into XML, and its entity where a value was."""
    head, _, rest = xml.partition(b"?>")
    head, rest = (head + b"?>", rest) if rest else (b"", xml)
    return head + doctype.encode() + rest.replace(name, b"&i;</", 1)


def deep(count: int, begin: str, end: str, middle: str = "") -> str:
    return begin * count + middle + end * count


def forged(shape: str, dtype: str = "<f8") -> bytes:
    """Write an .npz whose array promises more than there is."""
    held = io.BytesIO()
    np.save(held, np.zeros((10, 10)))
    text = held.getvalue().replace(b"(10, 10)", shape.encode().ljust(8)[:8]).replace(b"<f8", dtype.encode())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as whole:
        whole.writestr("x.npy", text)
    return archive.getvalue()


class Runs:
    """What would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def linked(folder: Path) -> Path:
    """Write node-link JSON whose fields name another file."""
    (folder / "secret.csv").write_text(SECRET)
    return file("g.json", json.dumps({"nodes": "secret.csv", "links": "secret.csv"}))(folder)


def many(count: int) -> bytes:
    """Write nodes each with an attribute of its own."""
    nodes = [{"id": n, f"a{n}": n} for n in range(count)]
    return json.dumps({"nodes": nodes, "links": [{"source": 0, "target": 1}]}).encode()


def wide() -> torch.Tensor:
    """Return a sparse matrix of a single number and very many rows."""
    return torch.sparse_coo_tensor([[0], [0]], [1.0], (10**12, 3), check_invariants=False)


MALFORMED: dict[str, Callable[[Path], Path]] = {
    # tables
    "empty folder": lambda folder: folder,
    "empty nodes": lambda folder: tables(folder, nodes=""),
    "empty edges": lambda folder: tables(folder, edges=""),
    "nodes with a header alone": lambda folder: tables(folder, nodes="id,size,group\n"),
    "edges with a header alone": lambda folder: tables(folder, edges="source,target\n"),
    "one column of edges": lambda folder: tables(folder, edges="source\n1\n"),
    "utf-16": lambda folder: tables(folder, nodes=NODES.encode("utf-16")),
    "latin-1": lambda folder: tables(folder, nodes=NODES.replace("color", "größe").encode("latin-1")),
    "latin-1 further down": lambda folder: tables(folder, nodes=NODES.encode() + "999,1,ü,a\n".encode("latin-1")),
    "zeros": lambda folder: tables(folder, nodes=b"\0" * 5000),
    "a picture": lambda folder: tables(folder, nodes=b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9),
    "long rows": lambda folder: tables(folder, nodes=lines(NODES, 5, "28,1,r,a,more,and more")),
    "all rows too long": lambda folder: tables(folder, edges=EDGES.replace("\n", ",7\n").replace(",7", "", 1)),
    "short rows": lambda folder: tables(folder, edges=lines(EDGES, 5, "28")),
    "an open quote": lambda folder: tables(folder, nodes=lines(NODES, 5, '28,1,"r,a')),
    "no id": lambda folder: tables(folder, nodes=lines(NODES, 5, ",1,r,a")),
    "an id twice": lambda folder: tables(folder, nodes=lines(NODES, 5, "7,1,r,a")),
    "ids after quoted newlines": lambda folder: tables(
        folder, nodes=lines(lines(NODES, 3, '14,0.02,"r\n\nx",a'), 9, "7,1,r,a")
    ),
    "an infinite feature": lambda folder: tables(folder, nodes=lines(NODES, 5, "28,inf,r,a")),
    "a feature beyond numbers": lambda folder: tables(folder, nodes=lines(NODES, 5, "28,1e999,r,a")),
    "a weight below 0": lambda folder: tables(folder, edges=lines(EDGES, 5, "28,35,-1")),
    "a weight that is none": lambda folder: tables(folder, edges=lines(EDGES, 5, "28,35,nan")),
    "an infinite weight": lambda folder: tables(folder, edges=lines(EDGES, 5, "28,35,inf")),
    "a weight in words": lambda folder: tables(folder, edges=lines(EDGES, 5, "28,35,heavy")),
    "ids of others": lambda folder: tables(
        folder, edges="source,target\n" + "".join(f"{10**18 + n},{10**18 + n + 1}\n" for n in range(9))
    ),
    "ids beyond numbers": lambda folder: tables(
        folder, edges="source,target\n" + "".join(f"{10**30 + n},{10**30 + n + 1}\n" for n in range(9))
    ),
    "two columns of one name": lambda folder: tables(folder, nodes=NODES.replace("size,color", "size,size")),
    "labels that are numbers to regress": lambda folder: tables(
        folder, nodes="id,label\n" + "".join(f"{7 * n},{n % 3 + 0.5}\n" for n in range(N))
    ),
    "no label": lambda folder: tables(folder, nodes="id,size\n" + "".join(f"{7 * n},{n}\n" for n in range(N))),
    "one class": lambda folder: tables(folder, nodes=NODES.replace(",b\n", ",a\n").replace("group", "label")),
    "a header without an end": lambda folder: tables(folder, nodes="a" * 2**21),
    "no parquet": lambda folder: tables(folder, nodes=b"PAR1" + b"\0" * 64 + b"PAR1", suffix=".parquet"),
    # networks
    "graphml cut off": file("g.graphml", GRAPHML[:-200]),
    "graphml that is json": file("g.graphml", JSON),
    "graphml that is no graph": file("g.graphml", "<a><b/></a>"),
    "graphml with an entity bomb": file("g.graphml", entities(GRAPHML, BOMB + "]>")),
    "graphml with an outside entity": file("g.graphml", entities(GRAPHML, OUTSIDE)),
    "graphml with an outside type": file("g.graphml", entities(GRAPHML, REMOTE)),
    "graphml, deep": file("g.graphml", deep(100_000, "<a>", "</a>")),
    "graphml in an unknown encoding": file("g.graphml", GRAPHML.replace(b"utf-8", b"utf-99", 1)),
    "graphml with a word for a number": file("g.graphml", GRAPHML.replace(b">0.02<", b">two<")),
    "gexf cut off": file("g.gexf", GEXF[:-200]),
    "gexf with an entity bomb": file("g.gexf", entities(GEXF, BOMB + "]>")),
    "gexf with an outside entity": file("g.gexf", entities(GEXF, OUTSIDE)),
    "gexf that is graphml": file("g.gexf", GRAPHML),
    "gml cut off": file("g.gml", GML[:-200]),
    "gml that is xml": file("g.gml", GRAPHML),
    "gml, deep": file("g.gml", "graph [ " + deep(50_000, "a [ ", "] ") + "]"),
    "gml, latin-1": file("g.gml", GML.replace(b'"a"', "ü".encode("latin-1"), 1)),
    "json cut off": file("g.json", JSON[:-20]),
    "json, deep": file("g.json", deep(200_000, "[", "]")),
    "json, deep in a node": file("g.json", '{"nodes": [{"id": ' + deep(900, "[", "]") + '}], "links": []}'),
    "json of a list": file("g.json", "[1, 2]"),
    "json of a number": file("g.json", "1e999"),
    "json without links": file("g.json", '{"nodes": [{"id": 1}]}'),
    "json whose nodes are numbers": file("g.json", '{"nodes": [1, 2], "links": []}'),
    "json that names a file": linked,
    "json with an infinite feature": file("g.json", JSON.replace(b'"size": 0.02', b'"size": Infinity')),
    "json with attributes of each node's own": file("g.json", lambda: many(8_000)),
    # arrays
    "npz that is no archive": file("g.npz", JSON),
    "npz cut off": file("g.npz", npz(**ARRAYS)[:-60]),
    "npz of objects": file("g.npz", npz(**ARRAYS | {"x": np.array([{}] * N, dtype=object)})),
    "npz that runs code": file("g.npz", npz(**ARRAYS | {"x": np.array([Runs()] * N, dtype=object)})),
    "npz, a bomb": file("g.npz", lambda: npz(**ARRAYS | {"x": np.zeros((2**13, 1100))})),
    "npz of a forged shape": file("g.npz", forged("(99, 99)")),
    "npz of a forged type": file("g.npz", forged("(10, 10)", "|O8")),
    "npz without edges": file("g.npz", npz(x=ARRAYS["x"])),
    "npz without nodes": file("g.npz", npz(edge_index=ARRAYS["edge_index"])),
    "npz with ids of 10^18": file("g.npz", npz(**ARRAYS | {"edge_index": ARRAYS["edge_index"] + 10**18})),
    "npz with a feature that is no number": file("g.npz", npz(**ARRAYS | {"x": ARRAYS["x"] * np.nan})),
    "npz with a matrix of forged parts": file(
        "g.npz",
        npz(y=ARRAYS["y"], adj_data=[1], adj_indices=[0], adj_indptr=[0, 1], adj_shape=[10**12, 10**12]),
    ),
    "npz with a matrix that points outside": file(
        "g.npz",
        npz(y=ARRAYS["y"], adj_data=[1], adj_indices=[10**9], adj_indptr=[0] + [1] * N, adj_shape=[N, N]),
    ),
    "pt that is no archive": file("g.pt", JSON),
    "pt cut off": file("g.pt", pt(data())[:-80]),
    "pt that runs code": file("g.pt", pt({"x": Runs()})),
    "pt of a number": file("g.pt", pt(5)),
    "pt of a module": file("g.pt", pt(torch.nn.Linear(2, 2))),
    "pt of a tensor larger than itself": file("g.pt", pt(data(x=torch.ones(1).expand(10**6, 10**6)))),
    "pt with labels larger than themselves": file("g.pt", pt(data(y=torch.ones(1).long().expand(10**12)))),
    "pt with a matrix of many rows": file("g.pt", lambda: pt(data(x=wide()))),
    "pt with ids of 10^18": file("g.pt", pt(data(edge_index=torch.as_tensor(ARRAYS["edge_index"]) + 10**18))),
    # other
    "of no known kind": file("g.xlsx", "PK"),
    "nothing there": lambda folder: folder / "nodes.csv",
}
"""Each of these is to be refused."""

ODD = [
    b"\0",
    b"\xff\xfe",
    b'"',
    b"\n",
    b",",
    b"nan",
    b"inf",
    b"-1",
    b"1e400",
    b"\xef\xbb\xbf",
    b"<!DOCTYPE x>",
    b"&lt;",
]
ODD += [
    b"[" * 3000,
    b"9" * 25,
    b"\r",
    b"\t",
    b";",
    b"<a>" * 200,
    b"{}",
    b"null",
    b"   ",
    b"NaN",
    b"1" + b"0" * 18,
    b"]",
]


def damaged(number: int, folder: Path) -> Path:
    """Write a sound file with one to three damages, which follow from a number; it may still be sound."""
    draw = random.Random(number)
    place = SOUND[draw.choice(list(SOUND))](folder)
    path = place if place.is_file() else draw.choice(sorted(place.iterdir()))
    held = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = draw.randrange(len(held) or 1)
        what = draw.choice(["cut", "flip", "insert", "replace", "leave out", "again"])
        if what == "cut":
            del held[at:]
        elif what == "flip" and held:
            held[at] ^= 1 << draw.randrange(8)
        elif what == "insert":
            held[at:at] = draw.choice(ODD)
        elif what == "replace":
            held[at : at + draw.randrange(1, 9)] = draw.choice(ODD)
        elif what == "leave out":
            del held[at : at + draw.randrange(1, 40)]
        else:
            held[at:at] = held[at : at + draw.randrange(1, 400)]
    path.write_bytes(held)
    return place


def file_cases(count: int) -> list[Case]:
    """Return all that is to be refused, and damaged files up to a number, handed to the command."""
    ask = "run('--dataset', str(path), '--label', 'group', '--seeds', '1', '--epochs', '1', '--no-mixture')"
    make = "from pathlib import Path; from tests.fuzzing.files import {0}; Path('g').mkdir(); path = {1}"
    made = [(f"refused: {kind}", make.format("MALFORMED", f"MALFORMED[{kind!r}](Path('g'))")) for kind in MALFORMED]
    left = range(count - len(MALFORMED))
    made += [("damaged", make.format("damaged", f"damaged({number}, Path('g'))")) for number in left]
    return [Case(kind, text, ask) for kind, text in made]
