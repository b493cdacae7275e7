"""Stand-ins for the outside world, for the demo, the tests and the benchmarks. No production image has them."""
