"""The mailer: delivers each mail of the queue, or says why not."""
