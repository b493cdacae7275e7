"""The house rules: imports, files, words."""
