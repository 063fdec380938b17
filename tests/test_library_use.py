"""The library in loops of one's own, and the classifier."""

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn.models import GCN

from graphkd import NKD, Signals
from mowst import InputError, LearnedGate, Mowst, MowstClassifier, from_networkx, load
from mowst.inference.modes import predict
from mowst.models.experts import EdgelessMLP
from mowst.models.outputs import log_pool


def test_mowst_in_a_hand_written_loop():
    data = load("sbm")
    weak = EdgelessMLP([data.num_features, 32, data.num_classes])
    strong = GCN(data.num_features, 32, 2, data.num_classes)
    model = Mowst(weak, strong, LearnedGate())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        model.train()
        optimizer.zero_grad()
        out = model(data.x, data.edge_index)
        loss = F.nll_loss(log_pool(out)[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
    right = predict(model, data.x, data.edge_index).argmax(-1) == data.y
    assert right[data.test_mask].float().mean() > 0.6


def test_a_distillation_loss_in_a_hand_written_loop():
    data = load("sbm")
    seen = data.y.masked_fill(~data.train_mask, -100)
    teacher_logits = 3 * F.one_hot(data.y, 4).float()
    student = GCN(data.num_features, 32, 2, data.num_classes)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    loss, teacher = NKD(), Signals(teacher_logits)
    for _ in range(100):
        logits = student(data.x, data.edge_index)
        total = F.cross_entropy(logits, seen) + loss(Signals(logits), teacher, target=seen).mean()
        optimizer.zero_grad(), total.backward(), optimizer.step()
    right = logits.argmax(-1) == data.y
    assert right[data.test_mask].float().mean() > 0.6


def clubs() -> nx.Graph:
    graph = nx.karate_club_graph()
    for node, attributes in graph.nodes(data=True):
        attributes["degree"] = graph.degree[node]
        attributes["side"] = [1.0 * (attributes["club"] == "Officer"), float(node == 0)]
        if node % 7 == 3:
            del attributes["club"]
    return nx.relabel_nodes(graph, {node: f"member {node}" for node in graph})


def test_from_networkx_to_names_and_back():
    data = from_networkx(clubs(), label="club", features=["degree", "side"])
    classifier = MowstClassifier(epochs=60, pretrain="both").fit(data)
    classes = classifier.predict(data)
    named = {name: data.class_names[i] for name, i in zip(data.node_names, classes.tolist(), strict=True)}
    assert set(named.values()) == {"Mr. Hi", "Officer"}
    graph = clubs()
    known = [name for name, attributes in graph.nodes(data=True) if "club" in attributes]
    assert sum(named[name] == graph.nodes[name]["club"] for name in known) / len(known) > 0.8


def test_the_classifier_predicts_some_nodes_and_in_every_mode(tiny):
    classifier = MowstClassifier(strong="sage", gate="power", epochs=20, seed=3).fit(tiny)
    nodes = torch.tensor([4, 9])
    assert torch.equal(classifier.predict(tiny, nodes), classifier.predict(tiny)[nodes])
    torch.testing.assert_close(classifier.predict_proba(tiny).sum(-1).cpu(), torch.ones(60))
    assert classifier.predict_proba(tiny, how="routed", threshold=0.0).shape == (60, 3)
    torch.testing.assert_close(classifier.keep(tiny).query([4, 9]), classifier.predict_proba(tiny, [4, 9]))


def test_the_classifier_leaves_the_callers_random_numbers_alone(tiny):
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    MowstClassifier(epochs=2).fit(tiny)
    assert torch.equal(torch.rand(1), first)


def test_the_classifier_says_what_is_wrong(tiny):
    with pytest.raises(InputError, match="colour"):
        MowstClassifier(colour="blue")
    with pytest.raises(InputError, match="fit"):
        MowstClassifier().predict(tiny)
    with pytest.raises(InputError, match="fit"):
        MowstClassifier().keep(tiny)
    tiny.x[0, 0] = float("nan")
    with pytest.raises(InputError, match="node 0"):
        MowstClassifier(epochs=1).fit(tiny)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regime": "solo"}, "no mixture"),
        ({"kd": "uskd"}, "logits only"),
        ({"regime": "joint", "kd": "nkd", "teacher": "teacher.npz"}, "only mowst.run reads one"),
    ],
)
def test_a_classifier_is_of_a_mixture_and_its_regime_takes_its_losses(options, words):
    with pytest.raises(InputError, match=words):
        MowstClassifier(**options).fit(load("sbm"))


def test_a_classifier_says_what_is_wrong_with_its_input():
    data = load("sbm")
    with pytest.raises(InputError, match="did you mean strong"):
        MowstClassifier(strongg="gcn")
    with pytest.raises(InputError, match="must be a PyG Data, is a Graph"):
        MowstClassifier().fit(nx.karate_club_graph())
    del data.test_mask
    data.x = data.x.double()  # as numpy has it
    classifier = MowstClassifier(epochs=3).fit(data)
    assert len(classifier.predict(data)) == data.num_nodes
    data.x = data.x[:, 1:]
    with pytest.raises(InputError, match=f"fitted on {data.num_features + 1}"):
        classifier.predict(data)
