"""The router: turns each access event into one mail job per recipient."""
