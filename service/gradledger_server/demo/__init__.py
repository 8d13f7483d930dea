"""The demonstration: four worker processes learn to read digits, and the service is killed on the way.

`story.py` tells it in order; `digits.py` is the data and the network, `worker.py` what a worker does,
`processes.py` who is started and stopped, `progress.py` what is seen meanwhile, `plot.py` what remains.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDS = {
    "gradledger": "gradledger",
    "matplotlib": "matplotlib",
    "rich": "rich",
    "sklearn": "scikit-learn",
}


def run(
    *,
    seconds: float = 90.0,
    plot: Path = Path("demo-loss.png"),
    data_dir: Path | None = None,
    epochs: int = 30,
) -> int:
    """Runs the demonstration and answers an exit code: 0 if every promise was kept.

    It gives up after `seconds`. The service's data stay in `data_dir`, or else nowhere.
    """
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        print(f"The demo needs {', '.join(missing)}: pip install 'gradledger-server[demo]'", file=sys.stderr)
        return 1
    from gradledger_server.demo import story

    return story.tell(seconds=seconds, plot=plot, data_dir=data_dir, epochs=epochs)
