"""Local training with rare rounds: DiLoCo, Streaming DiLoCo and federated averaging, over plain arrays.

    params = {"w": np.zeros(3, np.float32)}
    with OuterLoop(params, client=client, name="line", worker="w0", every=50) as outer:
        for x, y in batches:
            params["w"] -= 0.1 * gradient(params, x, y)     # the inner step, in place
            outer.step(weight=len(x))                       # every 50th makes a round

For PyTorch there is `gradledger.torch.DiLoCo`, which is the same loop around a module and its optimizer.

Reading order: `division.py` (which tensors go together), `local.py` (where the parameters live),
`fragment.py` (one part's pushes, and what becomes of those whose answer is lost), `options.py`, `outer.py`
(whose turn it is, and how a round's outcome meets local work).

DiLoCo is Douillard et al. 2023 (arXiv 2311.08105), Streaming DiLoCo is Douillard et al. 2025 (arXiv
2501.18512), federated averaging McMahan et al. 2017, its adaptive rules Reddi et al. 2021.
"""

from gradledger.diloco.division import divide
from gradledger.diloco.fragment import Fragment
from gradledger.diloco.local import Arrays, Local
from gradledger.diloco.options import Options
from gradledger.diloco.outer import OuterLoop

__all__ = ["Arrays", "Fragment", "Local", "Options", "OuterLoop", "divide"]
