"""The mail queue: the one place that knows how RQ keeps its state, and home of all Lua.

Each state change is one atomic script: `put.lua` is the router's, the others are the mailers'.
`common.lua` stands before each of them.
"""
