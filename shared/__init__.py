"""What two services speak: events, mails, keys, the queue, and how a process lives. It knows no service."""
