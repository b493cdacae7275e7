"""The promises under failure with very many mails: `make long`."""
