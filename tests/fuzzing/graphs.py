"""Graphs as people hand them over: a small one with one to three parts in an odd form (`tests.fuzzing.judge`)."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzzing.commands import some
from tests.fuzzing.judge import Case
from tests.fuzzing.words import listed

# --- Odd parts of a `Data`, as expressions

VALUES = listed(r"""
np.nan · np.inf · -np.inf · -1 · 0 · 1 · 2 · 3 · 24 · -2 · 2**31 · 2**40 · 2**62 · 2**63 · 10**30 · 0.5 · 1e38 · 1e300
-1e-300 · True · None · 'a' · '' · pd.NA · pd.NaT · np.float32('nan') · 1j · [1] · {} · Y · X · b'a' · float
np.datetime64('2020') · torch.tensor(1)
""")
ALTERED = listed(r"""
{} · {} · {} · {} · {}[:0] · {}[:5] · {}[1:] · {}[None] · {}[..., None] · {}.T · {}.ravel() · {}[..., :0]
{}[..., ::-1] · {}[::-1] · np.concatenate([{0}, {0}]) · np.stack([{0}] * 3, -1) · np.stack([{0}] * 2)
np.zeros_like({}) · {}[0] · np.ones_like({}) · {}.flat[0] · np.asfortranarray({}) · np.eye(24)[Y] · np.eye(3)[Y]
np.arange({}.size) · -{} · ~{} · {} * 10**9 · {} + 0.5 · {} - 1 · {} / 3 · {} * 1e30 · {}.reshape(2, -1)
{}.nonzero()[0] · np.sort({}, axis=None) · Y · E
""")
TYPES = listed(r"""
float16 · float32 · float64 · longdouble · complex64 · int8 · uint8 · int16 · int32 · int64 · uint64 · bool · object
str · bytes · datetime64[s] · >f4 · >i8
""")
HELD = listed(r"""
{} · torch.as_tensor(np.ascontiguousarray({})) · torch.as_tensor(np.ascontiguousarray({})) · {}.tolist()
tuple({}.tolist()) · sparse.csr_matrix({}) · sparse.coo_array({}) · pd.DataFrame({}) · pd.Series(list({}))
torch.as_tensor(np.ascontiguousarray({})).to_sparse() · torch.as_tensor(np.ascontiguousarray({})).to_sparse_csr()
torch.as_tensor(np.ascontiguousarray({})).half() · torch.as_tensor(np.ascontiguousarray({})).bfloat16()
torch.as_tensor(np.ascontiguousarray({})).double().requires_grad_()
torch.as_tensor(np.ascontiguousarray({})).to('meta') · torch.as_tensor(np.ascontiguousarray({})).cfloat()
np.ma.masked_array({0}, {0} > 0) · set({}.ravel().tolist()) · iter({}.tolist()) · memoryview(np.ascontiguousarray({}))
str({}) · [each for each in {}] · dict(enumerate({})) · pd.Series(list({})).astype('category')
torch.nn.Parameter(torch.as_tensor({})) · [torch.as_tensor(each) for each in {}]
torch.as_tensor(np.ascontiguousarray({})).to_sparse_csc() · pd.array({}.ravel()) · np.asmatrix({})
""")
ATOMS = listed(r"""
None · 'abc' · b'' · '' · 3 · 3.5 · -1 · 0 · np.nan · True · {} · [] · [[]] · object() · Data() · len · int
torch.tensor(0) · torch.empty(0) · torch.empty(0, 0) · np.array(None) · range(24) · [None] * 24 · ['a', 'b', 'c'] * 8
['a', 1, None] * 8 · [[1], [2, 3]] · np.empty((24, 0)) · torch.ones(24, 4, dtype=torch.complex64) · slice(None)
torch.device('cpu') · {'a': 1} · ['a', 'b', 'c'] · [1, 2, 3] · ['a', 'a', 'b'] · (1,) · 'accuracy' · 'rocauc'
[['a'], ['b'], ['c']] · [0, 5] · [2**40] · nx
""")
PARTS = {"x": "X", "edge_index": "E", "y": "Y", "train_mask": "TRAIN", "val_mask": "VAL", "test_mask": "TEST"}
PARTS |= {"edge_weight": "W", "edge_attr": "W"}
USUAL = listed(r"""
y=['a', 'b', 'c'] * 8 · y=np.array(['a', 'b', 'c'] * 8) · y=np.eye(3)[Y] · y=torch.eye(3)[torch.tensor(Y)] · y=Y + 5
y=Y > 0 · y=pd.Series(['a', 'b', None] * 8) · y=np.where(TEST, -1, Y) · y=pd.Categorical(['a', 'b', 'c'] * 8)
y=Y.astype(float) · y=-Y · y=np.where(TEST, np.nan, Y) · y=torch.tensor(Y)[:, None] · y=Y.astype('uint8')
y=[torch.tensor(each) for each in Y] · y=1 - Y · x=sparse.csr_matrix(X) · x=torch.tensor(X).to_sparse()
x=pd.DataFrame(X) · x=X.tolist() · x=X.astype('float16') · x=X > 0 · x=torch.nn.Embedding(24, 4).weight
x=np.arange(24)[:, None] + 1.7e9 · x=torch.eye(24).to_sparse_csr() · x=X * [1, 1, 1, 1e6]
train_mask=np.nonzero(TRAIN)[0] · train_mask=np.stack([TRAIN, VAL], 1) · train_mask=TRAIN.astype(int) · val_mask=None
val_mask=np.nonzero(VAL)[0].tolist() · test_mask=None · test_mask=np.zeros(24, bool)
train_mask=np.stack([TRAIN, VAL]) · edge_index=E.tolist() · edge_index=E.astype('int32') · edge_index=list(zip(*E))
edge_index=E[:, :1] · edge_index=E[:, :30] · edge_weight=W.tolist() · edge_weight=W[:, None]
edge_weight=np.zeros_like(W) · edge_weight=W * 1e30 · edge_weight=W.astype(int) · class_names=['a', 'b', 'c']
class_names=np.array(['a', 'b', 'c']) · num_classes=3 · num_classes=7 · metric='rocauc'
""")
"""Forms that people have, most of which must work."""
BESIDE = [
    "class_names",
    "num_classes",
    "metric",
    "node_names",
    "num_nodes",
    "name",
    "split",
    "adj_t",
    "batch",
    "weight",
]


@st.composite
def arrays(draw: st.DrawFn, base: str) -> str:
    """Draw an array in another form, shape or holder, with other values."""
    expression = draw(st.sampled_from(ALTERED)).format(base)
    value, place = draw(st.sampled_from(VALUES)), draw(st.integers(0, 30))
    change = draw(st.integers(0, 5))
    if change == 0:
        expression = f"at({expression}, {value}, {place})"
    elif change == 1:
        expression = f"({expression}).astype({draw(st.sampled_from(TYPES))!r})"
    elif change == 2:
        expression = f"full({expression}, {value})"
    return draw(st.sampled_from(HELD)).format(f"({expression})")


@st.composite
def datas(draw: st.DrawFn) -> str:
    """Draw a `Data` with some parts in another form, or one to three odd ones, or both."""
    usual, strange = draw(st.sampled_from([(True, False), (False, True), (False, True), (True, True)]))
    odd = dict(each.split("=", 1) for each in (draw(some(USUAL)) if usual else ()))
    for name in draw(some([*PARTS] * (draw(st.integers(0, 4)) > 0) or BESIDE)) if strange else ():
        array = name in PARTS and draw(st.integers(0, 5)) > 0
        odd[name] = draw(arrays(PARTS[name]) if array else st.sampled_from(ATOMS))
    return f"data({', '.join(f'{name}={value}' for name, value in odd.items())})"


OPTIONS = listed(r"""
lr · weight_decay · strong · weak · gate · regime · objective · kd · teacher · optimizer · dataset · seeds · seed
config · pretrain · eval_every · patience · ema_decay · signal · standardize · normalize_features · mixture
baselines · device · precision · nothing · first_seed · folds · epochs · rounds
""")
SOUND = listed(r"""
regime='joint' · regime='held-out' · strong='sage', gate='power' · strong='gat' · standardize=True · gate='fused'
regime='joint', kd='uskd' · regime='held-out', weak='trees' · regime='held-out', strong='hop-trees'
regime='held-out', weak='neighbours' · regime='held-out', strong='gcn+neighbours' · regime='alternate', rounds=1
normalize_features=True · strong='mlp', weak='gcn'
""")
ASKED = ["nodes", "how", "threshold", "generator"]
LONG_LASTING = ("2**", "10**", "24")
"""What must not become a number of epochs."""


@st.composite
def options(draw: st.DrawFn, names: list[str]) -> str:
    """Draw one or two keyword arguments with odd values."""
    chosen = draw(some(names))
    odd = st.sampled_from([each for each in VALUES + ATOMS if not each.startswith(LONG_LASTING)])
    return ", ".join(f"{name}={draw(odd)}" for name in chosen)


@st.composite
def estimators(draw: st.DrawFn) -> Case:
    """Draw a graph for `MowstClassifier`, to be trained on or asked about, or odd options."""
    sound, what = draw(st.sampled_from(SOUND)), draw(st.integers(0, 9))
    if what < 5:
        asked = f"c = trained(g, {sound}); proper(c.predict_proba(g)); proper(c.score(g))"
    elif what < 7:
        asked = f"c = trained({sound}); proper(c.predict_proba(g)); c.keep(g)"
    elif what < 8:
        asked = f"proper(trained({sound}).score(g, {draw(st.sampled_from([*map(repr, PARTS), *ATOMS]))}))"
    elif what < 9:
        return Case("data", f"o = dict({draw(options(OPTIONS))})", "proper(trained(**o).predict_proba(data()))")
    else:
        asked = f"proper(trained({sound}).predict_proba(data(), **o))"
        return Case("data", f"o = dict({draw(options(ASKED))})", asked)
    return Case("data", f"g = {draw(datas())}", asked)


# --- Graphs of networkx

GRAPHS = listed(r"""
nx.karate_club_graph() · nx.cycle_graph(24) · nx.complete_graph(12) · nx.empty_graph(24)
nx.DiGraph(nx.cycle_graph(24)) · nx.MultiGraph([(i, (i + j) % 24) for i in range(24) for j in (0, 1, 1)]) · nx.Graph()
nx.path_graph(2) · nx.star_graph(20) · nx.relabel_nodes(nx.cycle_graph(24), lambda i: (i, str(i)))
nx.relabel_nodes(nx.cycle_graph(24), str) · nx.MultiDiGraph(nx.karate_club_graph()) · nx.freeze(nx.cycle_graph(24))
nx.cycle_graph(24).subgraph(range(20)) · nx.relabel_nodes(nx.cycle_graph(24), lambda i: float(i) / 3)
nx.Graph([(None.__class__, 1), (2, 'a')]) · nx.grid_graph([4, 5])
""")
LABELS = listed(r"""
['a', 'b'] · [0, 1, 2] · [1, 2] · ['a', None, 'b'] · [0, 1, -1] · [0, 1, np.nan] · ['a', 1] · [True, False]
[[1], [0]] · [[1, 0], [0, 1]] · [torch.tensor(0), torch.tensor(1)] · [np.int64(0), np.int64(1)] · ['a'] · [10**9, 5]
[10**30, 1] · [pd.NA, 'x', 'y'] · [0.0, 1.0] · [0.5, 1] · range(24) · [b'a', b'b'] · [(1, 2), (3,)] · [{}, 'a']
[{1}, {2}] · [pd.NaT, 1] · [np.datetime64('2020'), np.datetime64('2021')] · [1j, 0] · ['', 'a'] · [None] · ['1', 1]
[-5, -6] · [np.array([0, 1]), 1] · [np.str_('a'), 'b'] · [frozenset(), 'a'] · [float('inf'), 0] · [2**63, 0]
[-2**63, 0] · [object()] · [[[0]], [[1]]] · [[], []]
""")
SIZED = listed(r"""
[1.0, 2.0] · [[1, 2], [3, 4]] · [1, [2]] · ['1', '2'] · [np.nan, 1] · [np.inf, 1] · [None, 1] · [torch.tensor(1.)]
[True] · [np.ones(3), np.zeros(3)] · [[]] · [[[1]]] · [1e300, 1] · [10**30, 1] · [1j] · [{}] · [{'a': 1}] · [pd.NA, 1]
[2**40, 2**40 + 1] · [1.0, 2.0, 3.0] · [0] · [np.datetime64('2020')] · [sparse.csr_matrix(np.eye(3))] · [b'1']
[torch.ones(2, requires_grad=True)]
""")
WEIGHTS = listed(r"""
[1.0] · [1, 2] · [-1] · [np.nan] · [np.inf, 1] · ['1'] · [None] · [None, 1] · [True] · [np.float32(2)] · [10**30]
[1e39] · [[1]] · [torch.tensor(1.)] · [0] · [{}] · [1j] · [1e300, 1]
""")
TAKES = ["weight", "class_names", "split", "seed", "train", "val", "val_per_class", "nothing", "label", "features", "G"]
NAMED = listed(r"""
['a', 'b'] · ['b', 'a', 'c'] · [] · 'ab' · [0, 1] · [[0], [1]] · {'a': 0} · 'per-class' · 'masks' · ['size', 'size']
['size', 5] · [['size']] · ('size',) · {'size'} · 'label' · 'nothing' · [None] · 0.9 · 1 · 2 · 10**9
np.array(['a', 'b']) · iter(['a'])
""")


@st.composite
def networks(draw: st.DrawFn) -> Case:
    """Draw a graph of networkx for `from_networkx`, and train on what comes of it."""
    label, sized, weight = (draw(st.sampled_from(each)) for each in (LABELS, SIZED, WEIGHTS))
    odd = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
    label, sized = label if 0 in odd else "['a', 'b', 'a']", sized if 1 in odd else "[1.0, 2.5, 0.0]"
    given = f"G = marked({draw(st.sampled_from(GRAPHS))}, 'label', {label}, {draw(st.sampled_from([1, 1, 2, 30]))}); "
    given += f"G = marked(G, 'size', {sized})" + (f"; G = joined(G, 'weight', {weight})" if 2 in odd else "")
    names = draw(some(TAKES)) if 3 in odd else []
    takes = {name: draw(st.sampled_from(NAMED + VALUES + ATOMS)) for name in names}
    given += (
        f"; o = dict(G=G, label='label', features=['size']) | dict({', '.join(f'{k}={v}' for k, v in takes.items())})"
    )
    asked = "g = from_networkx(**o)" + "; proper(trained(g).predict_proba(g))" * draw(st.booleans())
    return Case("networkx", given, asked)
