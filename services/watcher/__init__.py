"""The watcher: follows a Teleport cluster and puts what happens to its Access Requests on the stream."""
