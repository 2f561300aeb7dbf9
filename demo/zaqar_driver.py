"""OpenStack Zaqar's own Redis driver, from its package, as a Zaqar service uses it.

A message is a hash called by a bare id; a sorted set has a queue's ids in order; a claim is a hash, with a list of its messages.
Scripts touch the hashes without declaring them, and nothing in a message's key says which queue it is of: it is the traffic that is
hardest to spread over nodes.
"""

import sys
import uuid
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "drivers" / "zaqar"))
import service  # noqa: E402
from zaqar.storage import errors  # noqa: E402

# What a call may end with, and a service would answer with an error.
ERRORS = (redis.RedisError, errors.ExceptionBase)
PROJECT = "demo"
MESSAGE_TTL_S, CLAIM_TTL_S, GRACE_S = 3600, 300, 60


class ZaqarDriver:
    """Queues of one project, over connections of its own.

    Two settings are not Zaqar's: a call is never repeated (an error must show, and not be hidden by a second try), and only one
    that takes five seconds is an error.
    """

    def __init__(self, port):
        storage, clients = service.storage(f"redis://127.0.0.1:{port}?socket_timeout=5", attempts=1)
        for client in clients:
            client.set_retry(Retry(NoBackoff(), 0))
        self.queues = storage.queue_controller
        self.messages = storage.message_controller
        self.claims = storage.claim_controller
        self.name = uuid.uuid4()

    def create_queue(self, queue, dead_letters=None, max_claims=None):
        """What was claimed `max_claims` times goes to the queue `dead_letters` when it is claimed once more."""
        metadata = {}
        if dead_letters:
            metadata = {"_max_claim_count": max_claims, "_dead_letter_queue": dead_letters}
        self.queues.create(queue, metadata=metadata, project=PROJECT)

    def post(self, queue, bodies):
        """Their ids, in the same order."""
        messages = [{"ttl": MESSAGE_TTL_S, "body": body} for body in bodies]
        return self.messages.post(queue, messages, client_uuid=self.name, project=PROJECT)

    def page(self, queue, marker, limit, claimed=False):
        """A page of messages behind a marker, their bodies by id, and the next marker. The first page begins with the first message,
        or with the first that is free, if those that are claimed are not wanted."""
        found = self.messages.list(
            queue, project=PROJECT, marker=marker, limit=limit, echo=True, include_claimed=claimed
        )
        # Only who has read the page is told where it ends.
        page = bodies(next(found))
        return page, next(found) if page else None

    def claim(self, queue, limit):
        """The claim's id and the bodies of its messages by id; no id if all that was claimed became dead letters."""
        metadata = {"ttl": CLAIM_TTL_S, "grace": GRACE_S}
        claim, messages = self.claims.create(queue, metadata, project=PROJECT, limit=limit)
        return claim, bodies(messages)

    def release(self, queue, claim):
        """What is left of a claim can be claimed again."""
        self.claims.delete(queue, claim, project=PROJECT)

    def delete(self, queue, message, claim=None):
        """A message, which is in that claim if one is given."""
        self.messages.delete(queue, message, project=PROJECT, claim=claim)

    def count(self, queue):
        """How many messages there are, claimed ones included."""
        return self.queues.stats(queue, project=PROJECT)["messages"]["total"]


def bodies(messages):
    return {message["id"]: message["body"] for message in messages}
