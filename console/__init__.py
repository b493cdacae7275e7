"""The operator's desk: the `access-mail` command."""
