"""Promises under failure: processes killed, servers gone, data lost."""
