"""What docs/distillation.md shows, run."""

import re
from pathlib import Path

import torch


def test_the_blocks_run_one_after_the_other(capsys):
    text = (Path(__file__).parent.parent / "docs" / "distillation.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(block, names)
    assert "torch.Size([200])" in capsys.readouterr().out
