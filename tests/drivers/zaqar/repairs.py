"""What Zaqar's Redis storage needs repaired before it reaches a server.

Problem: Zaqar 23 has not followed redis-py and Python 3 everywhere, so much of its storage fails before it has sent anything
that matters.
Idea: replace what is broken, and nothing else. What is sent to the server, in which order and how often, is Zaqar's affair;
its time limits too. Each repair says what it is for.
"""

from redis._parsers import Encoder
from zaqar.storage.redis.catalogue import CatalogueController
from zaqar.storage.redis.claims import ClaimController
from zaqar.storage.redis.flavors import FlavorsController
from zaqar.storage.redis.pools import PoolsController


def send_none_as_text():
    """Zaqar sends None as a marker and as a field's value; redis-py refuses it since version 3, and sent its name before."""
    encode = Encoder.encode
    Encoder.encode = lambda self, value: encode(self, "None" if value is None else value)


def name_arguments_of_pools():
    """The base class hands over (name, weight, uri, flavor, options); here a group would be between them."""
    create = PoolsController._create
    PoolsController._create = lambda self, name, weight, uri, flavor=None, options=None: create(
        self, name, weight, uri, flavor=flavor, options=options
    )


def take_lost_claims_for_expired():
    """A claim that has expired has no time of expiry, which cannot be compared with the time of day."""
    read = ClaimController._get_claim_info

    def repaired(self, claim, fields, transform=int):
        found = read(self, claim, fields, transform)
        return [0] if found == [None] else found

    ClaimController._get_claim_info = repaired


class TextClient:
    """A client whose replies are text, as they were in Python 2; options and capabilities stay what they are, packed."""

    PACKED = ("o", "c")

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)

    @staticmethod
    def text(value):
        value = value.decode() if isinstance(value, bytes) else value
        return None if value == "None" else value

    def field(self, name, value):
        return value if name in self.PACKED else self.text(value)

    def hgetall(self, key):
        return {name.decode(): self.field(name.decode(), value) for name, value in self.client.hgetall(key).items()}

    def hmget(self, key, names):
        return [self.field(name, value) for name, value in zip(names, self.client.hmget(key, names))]

    def zrange(self, *arguments, **options):
        return [self.text(value) for value in self.client.zrange(*arguments, **options)]


def read_text(controller):
    """Pools, flavors and the catalogue take replies for text."""
    begin = controller.__init__

    def repaired(self, *arguments, **options):
        begin(self, *arguments, **options)
        self._client = TextClient(self._client)

    controller.__init__ = repaired


def repair():
    """All of it, once for a process."""
    send_none_as_text()
    name_arguments_of_pools()
    take_lost_claims_for_expired()
    for controller in (PoolsController, FlavorsController, CatalogueController):
        read_text(controller)
