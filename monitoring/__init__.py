"""What operators look at, written by code: dashboards for Grafana, and the page of all metrics. In no wheel."""
