"""Everything that knows how Teleport talks: credentials, the way to its Auth Service, the calls, the messages."""
