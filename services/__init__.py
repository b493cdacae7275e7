"""The product: three services with Redis between them.

    Teleport ══▶ watcher ══ stream of access events ══▶ router ══ RQ queue "mail" ══▶ mailer ══▶ relay ══▶ a mailbox

The watcher lists and follows a cluster's Access Requests, the router decides who hears what, the mailers send. Each
hop is durable: a service may die at any moment, and the next one that starts goes on from what Redis holds. Services
never import one another; what two of them speak is in `shared`.
"""
