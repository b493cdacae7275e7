"""What the product costs, measured: ratios of one run on one machine are the figures to keep. `make bench` runs it all.

Load goes to loopback addresses only; the relays are sinks of these benchmarks themselves.
"""
