"""`python -m tests.ray_nodes`: a Ray cluster of two nodes on this machine, `a` (the head) and `b`, a slot each.

Says its address on stdout, then does what stdin tells: `kill` ends `b` at once; the end of stdin ends everything. Ports
are bound to 127.0.0.1 only, which Ray does where clusters of several machines are off (ENVIRONMENT); whoever connects
needs the same.
"""

from __future__ import annotations

import sys

ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def main() -> None:
    """See above."""
    from ray.cluster_utils import Cluster

    both = {"num_cpus": 0, "resources": {"mqtest_cell": 1}, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"node_name": "a", **both})
    other = cluster.add_node(node_name="b", **both)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(other, allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
