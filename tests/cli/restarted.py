"""What `test_launching.py` runs: WORDS; `detr WORDS` in two processes of torchrun's agent, which starts them anew once.

torchrun would start interpreters; this agent, the same, forks.
"""

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from detr.cli import main
from detr.evaluation import plots

plots.available = lambda: False


def detr():
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise


config = LaunchConfig(
    min_nodes=1,
    max_nodes=1,
    nproc_per_node=2,
    run_id="restarted",
    rdzv_backend="c10d",
    rdzv_endpoint="localhost:0",
    local_addr="localhost",
    max_restarts=1,
    start_method="fork",
)
elastic_launch(config, detr)()
