"""Missing values and categories: trees see a graph's columns as they came, every other expert what was made of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.ensemble import HistGradientBoostingClassifier

import mowst
from mowst.data.assembling import own_of, raw_of
from mowst.errors import InputError
from mowst.kernels import Adjacency, Raw, Tabled, dense, prepare_features, rows_of
from mowst.models import EdgelessMLP, Trees, expert, reads_of, run_module
from mowst.models.averages import averages
from mowst.models.learners import ABSENT

N, SEEN = 400, 250
NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def raw_columns() -> tuple[Raw, torch.Tensor]:
    """Return two categories of which some numbers come among the last nodes alone, two numbers, and three classes."""
    draw = np.random.default_rng(0)
    towns, jobs = draw.integers(0, 30, N) * 3, draw.integers(0, 7, N)
    towns[SEEN:] += draw.integers(0, 2, N - SEEN)  # none of these was seen
    numbers = draw.normal(size=(N, 2))
    y = (towns // 3 % 3 + (jobs > 3) + (numbers[:, 0] > 0.5)) % 3
    values = np.column_stack([towns, jobs, numbers])
    values[draw.random((N, 4)) < 0.1] = np.nan
    return Raw(torch.from_numpy(values), 2), torch.from_numpy(y)


def test_trees_on_a_table_say_what_scikit_learn_says_with_categorical_features(tmp_path):
    raw, y = raw_columns()
    x, trees = Tabled(torch.zeros(N, 5), raw), Trees(5, 3)
    trees.learn(x, NO_EDGES, torch.where(torch.arange(N) < SEEN, y, -100), None, 25)
    assert (trees.divides >= 0).sum() > 20  # categories are asked
    grown = HistGradientBoostingClassifier(
        max_iter=25,
        max_leaf_nodes=15,
        min_samples_leaf=5,
        early_stopping=False,
        random_state=0,
        categorical_features=[0, 1],
    ).fit(raw.values[:SEEN].numpy(), y[:SEEN].numpy())
    wanted = grown.predict_proba(raw.values.numpy()).clip(ABSENT)
    wanted = wanted / wanted.sum(1, keepdims=True)
    assert np.allclose(trees(x).double().softmax(1).numpy(), wanted, atol=2e-6)
    save_file(trees.state_dict(), tmp_path / "w.safetensors")
    again = Trees(5, 3)
    again.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(again(x), trees(x))
    with pytest.raises(InputError, match="this graph has other ones, or none"):
        again(torch.zeros(N, 5))


def test_hop_trees_see_the_table_of_a_node_and_averages_of_features():
    raw, _ = raw_columns()
    features = torch.rand(N, 5, generator=torch.Generator().manual_seed(0))
    edges = torch.randint(N, (2, 900), generator=torch.Generator().manual_seed(1))
    trees = Trees(5, 3, hops=2)
    trees.hold(columns=torch.tensor([4, 2]))
    table = trees.table(Tabled(features, raw), Adjacency.from_edge_index(edges, N))
    assert torch.equal(table[:, :4].nan_to_num(9.0), raw.values.nan_to_num(9.0))
    assert torch.allclose(table[:, 4:].float(), torch.cat(averages(features, edges, 2), 1))


@pytest.mark.parametrize("form", [lambda x: x, prepare_features], ids=["dense", "sparse"])
def test_every_other_expert_sees_the_features_alone(form):
    raw, _ = raw_columns()
    plain = torch.rand(N, 8, generator=torch.Generator().manual_seed(0))
    plain = form(plain * (plain > 0.95))
    x, nodes = Tabled(plain, raw), torch.tensor([3, 0, 7])
    edges = torch.randint(N, (2, 900), generator=torch.Generator().manual_seed(1))
    for kind in ("mlp", "gcn", "sage", "gat", "sign", "gcn-res"):
        torch.manual_seed(0)
        module = expert(kind, 8, 3, hidden_channels=4, num_layers=2).eval()
        assert torch.equal(
            run_module(module, reads_of(module), x, edges), run_module(module, reads_of(module), plain, edges)
        )
    assert torch.equal(dense(x), dense(plain))
    assert torch.equal(dense(rows_of(x, nodes)), dense(plain)[nodes])
    assert torch.equal(rows_of(x, nodes).raw.values.nan_to_num(9.0), raw.values[nodes].nan_to_num(9.0))
    assert torch.equal(x.clone().raw.values.nan_to_num(9.0), raw.values.nan_to_num(9.0))
    assert torch.equal(x + 1, dense(plain) + 1)
    assert torch.equal(EdgelessMLP([8, 3], bias=False).eval()(x).detach() * 0, torch.zeros(N, 3))


def tables(seed: int, count: int = 240, towns: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return nodes whose class is told by a town, a job and a number, with values missing, and edges within classes."""
    draw = np.random.default_rng(seed)
    town, job, age = draw.integers(0, towns, count), draw.integers(0, 4, count), draw.normal(40, 10, count)
    y = (town % 2 + (age > 45)) % 2
    nodes = pd.DataFrame({"id": np.arange(count), "town": [f"t{each}" for each in town], "job": job * 1.0, "age": age})
    nodes["job"] = nodes["job"].map("job {:.0f}".format)
    nodes["label"] = np.where(y > 0, "yes", "no")
    for name in ("town", "job", "age"):
        nodes.loc[draw.random(count) < 0.15, name] = None
    ends = draw.integers(0, count, (2, 6 * count))
    ends = ends[:, (y[ends[0]] == y[ends[1]]) | (draw.random(6 * count) < 0.2)]
    return nodes, pd.DataFrame({"source": ends[0], "target": ends[1]})


def test_a_graph_of_tables_keeps_its_columns_as_they_came():
    nodes, edges = tables(0)
    data = mowst.from_tables(nodes, edges, label="label")
    raw = raw_of(data)
    fitted = own_of(data).fitted
    town, job = (next(column for column in fitted.columns if column.name == name) for name in ("town", "job"))
    assert raw.categories == 2
    for place, column in enumerate((town, job)):
        numbers = raw.values[:, place]
        assert torch.equal(numbers.isnan(), torch.tensor(nodes[column.name].isna().to_list()))
        said = [None if np.isnan(each) else column.values[int(each)] for each in numbers.tolist()]
        assert said == [None if pd.isna(each) else each for each in nodes[column.name]]
    assert np.allclose(raw.values[:, 2], nodes["age"].to_numpy(float), equal_nan=True)
    other, links = tables(1, towns=11)  # towns that the first graph has not
    new = raw_of(mowst.from_tables(other, links, label="label", like=data))
    unknown = other["town"].isin([f"t{each}" for each in (8, 9, 10)]).to_numpy()
    assert unknown.any()
    assert bool(new.values[torch.tensor(unknown.tolist()), 0].isnan().all())


def test_a_table_of_plain_numbers_needs_no_other_form_and_other_features_have_no_table():
    nodes, edges = tables(0)
    plain = mowst.from_tables(nodes[["id", "label"]].assign(a=np.arange(240) % 7, b=1.0 * np.arange(240)), edges)
    assert raw_of(plain) is None
    data = mowst.from_tables(nodes, edges, label="label")
    data.x = torch.rand(240, 3)
    assert raw_of(data) is None


@pytest.mark.parametrize("kind", ["trees", "hop-trees", "gcn+hop-trees"])
def test_a_run_trains_on_the_table_and_predicts_another_graph_by_it(kind, tmp_path):
    from mowst.predict import command as predict
    from mowst.run import command as run

    for name, seed in (("people", 0), ("others", 1)):
        nodes, edges = tables(seed)
        (tmp_path / name).mkdir()
        nodes.to_csv(tmp_path / name / "nodes.csv", index=False)
        edges.to_csv(tmp_path / name / "edges.csv", index=False)
    out, found = tmp_path / "run", tmp_path / "found.csv"
    words = f"--label label --strong {kind} --epochs 40 --seeds 1 --device cpu --quiet --out {out}"
    run(["--dataset", str(tmp_path / "people"), *words.split()])
    state = {name: value for path in out.rglob("*.safetensors") for name, value in load_file(path).items()}
    assert [3, 2] in [value.tolist() for name, value in state.items() if name.endswith("columns")]
    predict([str(out), "--graph", str(tmp_path / "others"), "--out", str(found)])
    right = (pd.read_csv(found)["predicted"] == tables(1)[0]["label"]).mean()
    assert right > 0.75
