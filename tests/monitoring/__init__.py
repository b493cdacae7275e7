"""What operators look at: metrics that Prometheus likes, and dashboards on which every panel has something to show."""
