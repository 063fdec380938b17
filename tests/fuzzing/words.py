"""Words that odd inputs are made of: one a line, or several with a dot between; escapes are as in Python."""

from __future__ import annotations

LONG = "9" * 4400


def listed(text: str) -> list[str]:
    """Read a list of words."""
    words = [word for line in text.strip("\n").splitlines() for word in line.split(" · ")]
    return [word.encode("latin-1", "backslashreplace").decode("unicode_escape") for word in words]


CHEAP = listed(r"""
0 · -1 · 1 · 2 · 1.0 · 1.5 · nan · .nan · .inf · -.inf · true · null · '' · [] · [1] · {} · two · 1e400
99999999999999999999 · -9223372036854775809 · {a: 1} · [[]] · 1:30 · ~ · - 1
""")
CHEAP.append(LONG)
"""Values that cost no time, of fields that may."""
ODD = listed(r"""
no · 2147483647 · 2147483648 · -9223372036854775808 · 1e-3 · 1e3 · 1e308 · -1e-320 · 'no' · '1' · é · 2020-01-01
0x10 · 0o17 · 1_000 · 1,5 · [nan] · [1, two, null] · {kind: gcn} · {1: 2} · {null: null}
!!python/object/apply:os.getpid [] · !!binary aGVsbG8= · !!set {a, b} · &a [*a] · *a · {<<: {a: 1}} · ? · os:system
subprocess:getoutput · torch.nn:Linear · torch:Tensor · mowst:load · a.b:c · : · a: · :a · torch_geometric.nn:GCNConv
torch_geometric.nn.models:GCN · torch.optim:SGD · no.such.module:Name · a b · . · .. · / · ./nothing · /dev/null
good.yaml · /nowhere/x · a/b/c · ~/x · %s · {}{} · \\ · " · ' · GCN · gnc · gcn · mlp · mlp+gat · adam · strong · weak
none · None · cpu · cuda:7 · mps · tpu · [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa · \u202eabc
a\x00b · \ud800 · \u2028 · - - - 1 · | · > x · nkd+ · kd( · nkd(weight=-1) · nkd(weight=nan) · gld(k=0)
kd(temperature=0) · uskd · nkd+nkd · [nkd, 3] · [{name: nkd, weight: x}] · [{k: 5}] · variance · [variance, variance]
[max, margin] · masks · tests:x
""")
ODD += ["[" * 3000, "", "a" * 300]
"""Values of any field."""
FIELDS = listed(r"""
weak.kind · weak.hidden_channels · weak.num_layers · weak.dropout · weak.norm · weak.options · strong.kind
strong.hidden_channels · strong.num_layers · strong.dropout · strong.norm · strong.options · gate.kind
gate.dispersions · gate.features · gate.detach · gate.options · dataset · data_root · split · weak · strong
gate · columns.id · columns.source · columns.label · columns.features · columns.split_column · columns.weight
columns.nodes_file · columns.edges_file · columns.directed · regime · objective · pretrain · folds · rehearsals
kd · teacher · optimizer · lr · gate_lr · weight_decay · epochs · patience · rounds · eval_every · ema_decay
eval_nodes · signal · normalize_features · standardize · mixture · baselines · seeds · first_seed · device · precision
""")
"""Fields of a configuration."""
DAMAGED = listed(r"""
{} · {} · {} · {} · {} · {} · - {} · {0}{0} · \ufeff{} · {}\x00 · {}unknown: 1\n · {}lr\n · ---\n{0}---\n{0}
{}\tlr: 1\n · {}1: 2\n · {}? [a]\n: b\n · %YAML 9\n---\n{} · {}weak.kind: mlp\n · x: &x [1, 2]\ny: *x\n{} · 5 · null
[] · \udcff{} · {}...\n · {}lr: {{{{}}}}\n
""")
DAMAGED += ["", "{}#" + " " * 2**20]
"""What becomes of a YAML file."""
NEAR = listed(r"""
norm: layer_norm · kind: trees · kind: hop-trees · kind: neighbours · kind: gcn+trees · kind: mlp+hop-trees
kind: trees+ · options: {rounds: 3} · options: {hops: 1} · options: {hops: -1} · options: {hops: x}
options: {rounds: 0} · kind: +gcn · norm: none · norm: graph_norm · norm: pair_norm · norm: NoneNorm · dropout: 0
dropout: 0.999 · kd: nkd · kd: uskd · kd: gld(k=3)+nkd · kd: [{name: nkd, weight: 0.1, on: all}]
kd: [{name: kd, warmup: 1}] · kd: lsp · kd: kd+ · kd: [{name: gld, k: 2, inner: nkd}] · kd: ofa(x=1)
kd: nkd(on=test) · kd: dkd(weight=1e30) · kd: nkd(warmup=-1) · lr: 1e30 · objective: joint · objective: separate
objective: joint-logits · optimizer: adam · optimizer: torch.optim:LBFGS · lr: 1e-30 · optimizer: torch.optim:SGD
optimizer: torch.optim:Optimizer · optimizer: torch.optim:SparseAdam · optimizer: torch.optim:Rprop · signal: loss
signal: expected · signal: metric · precision: bf16-mixed · precision: 16-mixed · device: cpu · device: cuda
device: cpu:1 · split: per-class · teacher: weak · teacher: strong · teacher: good.yaml · regime: solo
regime: alternate · regime: fine-tuned · regime: held-out · regime: joint · pretrain: both · pretrain: none · folds: 3
folds: 100000 · folds: 24 · rehearsals: 2 · eval_every: 7 · ema_decay: 0.9 · ema_decay: 0.999999 · mixture: false
baselines: false · patience: 1 · kind: mlp · kind: gat · kind: gin · kind: sage-res · kind: gat-res · kind: gin-skip
kind: torch_geometric.nn.models:PNA · kind: torch_geometric.nn.models:EdgeCNN · kind: torch_geometric.nn.models:LINKX
kind: torch_geometric.nn:SGConv · kind: fused · kind: torch_geometric.nn.models:Node2Vec · kind: power
kind: monotone · kind: logistic · dispersions: [max, margin] · options: {} · dispersions: [max, max, max]
dispersions: margin · options: {act: elu} · options: {act: nothing} · options: {heads: 3}
options: {hidden_channels: 3} · options: {jk: cat} · options: {jk: x} · options: {bias: 5} · options: {dropout: 2}
options: {in_channels: 3} · options: {norm: none} · options: {alpha: -1} · options: {start: [1]}
options: {residual: false} · options: {norm_kwargs: {x: 1}} · options: {aggr: median}
options: {add_self_loops: false} · options: {plain_last: false} · weight_decay: 1e30 · first_seed: 4294867295
gate_lr: 1e30 · standardize: true · normalize_features: true · seeds: 2 · dataset: sbm · dataset: karate
dataset: SBM · dataset: torch_geometric.datasets:KarateClub · data_root: good.yaml · data_root: nothing · how: routed
how: sampled · threshold: 0.5 · threshold: 2 · threshold: -inf · seed: 7 · save: p.npz · save: p
save: no/where/p.npz · save: r/seed-0/predictions.npz · out: o · out: good.yaml · out: good.yaml/x · out: r
study: s.log · study: sqlite:///s.db · study: sqlite:////no/where/s.db · study: grpc://127.0.0.1:9 · study: x://y
study: r · study: good.yaml · study: no/where/s.log · study: postgresql://127.0.0.1:9/x · study: mysql://x
goals: [metric, share] · goals: [share, parameters] · goals: [metric, metric] · goals: metric · sampler: random
sampler: gp · sampler: nsgaii · sampler: cmaes · sampler: grid · sampler: hub:a:b
sampler_options: {n_startup_trials: 1} · sampler_options: {x: 1} · sampler_options: {n_startup_trials: x}
pruner: none · pruner: hyperband · pruner: median · pruner_options: {n_min_trials: 0}
pruner_options: {percentile: 200} · timeout: 0 · timeout: 0.001 · silence: 1 · name: other · retrain: 1 · finalists: 1
trust: tests · trust: nothing · trust: os · matmul: high · matmul: highest · config: good.yaml · config: c.yaml
config: r/config.yaml
""")
"""Values of fields, sound ones or nearly."""
RUN = listed(r"""
out · overwrite · resume · checkpoint_minutes · checkpoint_epochs
fast · keep_memory · matmul · workers · trust · config · quiet · list · help
""")
"""Flags of the commands, beside fields."""
TUNE = listed(r"""
study · name · trials · workers · goals · sampler · sampler_options · pruner · pruner_options · seed · silence
timeout · fast · space · search · retrain · finalists · out · quiet · trust · config
""")
PREDICT = listed(r"""
data_root · device · nodes · how · threshold · seed · save · trust · graph · out
""")
SEARCHES = listed(r"""
lr=1e-3..1e-1:log · lr=1..0 · lr=.. · lr · = · x=1 · strong.num_layers=2,3 · lr=0..1:log · kd=nkd,kd
strong.options.heads=1,2 · gate.kind=power,learned · weak=1 · dropout=0..1 · lr=a..b · lr=1e400..2
""")
SPACES = listed(r"""
lr: 1e-3..1e-1:log · lr: [0.1, 0.2] · lr: [] · lr: {a: 1} · [] · weak: {dropout: 0.3} · seeds: [1, 2]
strong.num_layers: [2, 3] · kd: {nkd: {weight: 0..1}} · lr: [nan, .inf] · a: &a [*a] · x · lr: 1..2..3
strong: {options: {heads: [1, 4]}} · weak: {kind: [mlp, os:system]} · lr: [1, one, null, [2]] · lr: 5 · 1: 2
""")
OF_NODES = listed(r"""
0,5,9 · 0 · -1 · 48 · 0,0,0 · 1.5 · 0,,1 · , ·   · 1e1 · 0-5 · [0] · good.yaml · ids.txt
""")
OF_NODES.append(LONG)
KEYS = listed(r"""
loader · arguments · undirected · splits · metric · licence · homepage · source · folder · raw · simple · features
transforms · counts · exercised · splits.random · splits.new · splits.file · arguments.num_nodes
arguments.num_features · arguments.num_classes · arguments.degree · arguments.signal · arguments.homophily
arguments.seed · arguments.root · arguments.x
""")
"""Keys of a card."""
FILES = listed(r"""
result.json · predictions.npz · model.safetensors · config.yaml · metrics.jsonl
""")
DAMAGES = listed(r"""
cut({0!r}, {1}) · flip({0!r}, {2}) · write({0!r}, {3!r}) · os.remove({0!r}) · becomes_folder({0!r})
becomes_link({0!r}, 'nothing') · becomes_link({0!r}, '{0}') · becomes_link({0!r}, '/dev/null')
""")
"""What becomes of a file."""
CONTENT = listed(r"""
{} · [] · null · 5 · NaN · "x" · {"seed": 0} · \0\0\0\0 · é · PK\x03\x04 · {"a": 1, "a": 2}
""")
CONTENT += ["", "[" * 10_000, LONG]
IN_JSON = listed(r"""
, None · , 5 · , -1 · , 'x' · , [] · , {} · , float('nan') · , 1e400 · , True · , 10**30 · , [None] · , '../x'
""")
IN_JSON.append("")
"""What comes in the place of something in a JSON file; nothing: it is taken away."""
TENSORS = listed(r"""
None · lambda t: t[:1] · lambda t: t.double() · lambda t: t * float('nan') · lambda t: t.reshape(-1)
lambda t: t[None] · lambda t: t.int() · lambda t: t.bool() · lambda t: t * 1e38 · lambda t: torch.zeros(0)
lambda t: t.half()
""")
ARRAYS = listed(r"""
lambda a: {} · lambda a: a | {'mixture': a['mixture'][:3]} · lambda a: a | {'mixture': a['mixture'].astype(int)}
lambda a: a | {'mixture': a['mixture'] * np.nan} · lambda a: a | {'mixture': np.array([{}], object)}
lambda a: a | {'mixture': np.float32(1)} · lambda a: {'nodes': 1} · lambda a: a | {'strong': a['strong'].T}
""")
USES = listed(r"""
command('predict', 'r/seed-0') · command('predict', 'r/seed-0') · command('predict', 'r/seed-0')
command('predict', 'r/seed-0') · run('--out', 'r') · run('--out', 'r', '--overwrite')
command('predict', 'r/seed-0', '--nodes', '0,3', '--how', 'routed') · run('--config', 'r/config.yaml', '--out', 'o')
run('--regime', 'solo', '--kd', 'kd', '--teacher', 'r')
run('--kd', 'kd', '--regime', 'joint', '--teacher', 'r/seed-0:strong') · tune() · tune('--out', 'r')
run('--out', 's-best') · command('predict', 'r/seed-0', '--save', 'r/p.npz')
run('--regime', 'solo', '--kd', 'kd', '--teacher', 'r/seed-0/predictions.npz')
""")
OF_KEY = {
    "loader": listed(r"""
mowst.data.built_in:digits · torch_geometric.datasets:KarateClub · torch_geometric.data:Data · os:getcwd
torch_geometric.datasets:FakeDataset · torch_geometric.datasets:Nothing · mowst.data:load · json:load
"""),
    "splits": listed(r"""
{} · {random: random} · {random: {}} · {a: {kind: per-class, train: 10}} · {a: {kind: masks}}
"""),
    "transforms": listed(r"""
{Nothing: {}} · {NormalizeFeatures: {}} · {ToUndirected: {reduce: x}} · {LocalDegreeProfile: null}
{ToSparseTensor: {}} · {RandomNodeSplit: {num_val: 2}} · {Compose: {transforms: []}} · {AddSelfLoops: {}}
{LargestConnectedComponents: {}} · {NormalizeFeatures: 5} · {OneHotDegree: {max_degree: 1}} · {Constant: {}}
"""),
    "features": listed(r"""
{LocalDegreeProfile: {}} · {Constant: {value: 1}} · {OneHotDegree: {}} · {x: y}
"""),
    "counts": listed(r"""
[{nodes: 48}] · [{nodes: x}] · [{node: 48}] · [5] · {nodes: 48} · [{}] · [{nodes: -1, edges: 3}]
"""),
    "splits.random": listed(r"""
{kind: random, train: 2} · {kind: random, train: x} · {kind: random, val: null} · {kind: x}
"""),
    "splits.file": listed(r"""
{kind: file, path: x.npz} · {kind: file, path: ../x.npz} · {kind: file, path: 5} · {kind: file}
{kind: file, path: x.npz, url: http://127.0.0.1:9/x.npz} · {kind: file, path: good.yaml, sha256: 0}
"""),
    "metric": listed(r"""
rocauc · f1 · [accuracy]
"""),
    "undirected": listed(r"""
false · 'no' · 0
"""),
}
"""Values of a card's keys, right ones among them."""

RAW = listed(r"""
{} · a | {'target': a['target'][:5]} · a | {'target': a['target'] * 1.5} · a | {'target': a['target'][:, None]}
a | {'target': np.zeros(24)} · a | {'target': a['target'] * 7} · a | {'target': np.array(['a'] * 24)}
a | {'edges': a['edges'] + 5} · a | {'edges': a['edges'][:0]} · a | {'edges': -a['edges']}
a | {'edges': a['edges'] * 2**40} · a | {'edges': a['edges'].T} · a | {'edges': a['edges'] / 3}
a | {'features': a['features'] * np.nan} · a | {'features': a['features'][:5]}
a | {'features': a['features'][:, :0]} · a | {'features': a['features'] * 1e300} · a | {'features': a['features'] > 0}
a | {'features': a['features'].astype(object)} · a | {'features': a['features'].astype(str)}
{'features': a['features']} · a | {'features': a['features'][0]} · a | {'features': np.array({1: 2}, object)}
a | {'target': -a['target']} · a | {'features': a['features'].astype(complex)}
a | {'target': a['target'].astype(bool)} · a | {'target': np.arange(24)}
""")
"""What becomes of the raw arrays `a` of a graph."""
GRAPH_FILES = listed(r"""
data/Twitch/PT/raw/PT.npz · data/Twitch/PT/processed/data.pt · data/Twitch/PT/processed/pre_filter.pt
data/Twitch/PT/processed/pre_transform.pt
""")
