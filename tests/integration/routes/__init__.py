"""Every way to the cluster, and what may stand in it."""
