"""A pytest plugin that lets Zaqar's own tests reach a server.

Problem: Zaqar 23 has not followed redis-py and Python 3 everywhere, so half of its storage tests end before they have sent
anything that matters.
Idea: replace what is broken, and nothing else. What is sent to the server, in which order and how often, is Zaqar's affair;
its time limits too. Each repair says what it is for. Tests that fail for other reasons go on failing, on every server alike.

Besides, every test begins with an empty server: some leave things behind.
"""

import os
from unittest import mock

import pytest
import redis
from oslo_utils import timeutils
from redis._parsers import Encoder
from zaqar.storage.redis.catalogue import CatalogueController
from zaqar.storage.redis.claims import ClaimController
from zaqar.storage.redis.flavors import FlavorsController
from zaqar.storage.redis.messages import MessageController
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


def posts_in_the_past():
    """For `test_gc`, which posts 100 messages and claims them a second ago: it works only if the posts take longer than that."""
    post, now = MessageController.post, timeutils.utcnow_ts

    def repaired(self, *arguments, **options):
        with mock.patch.object(timeutils, "utcnow_ts", lambda: now() - 2):
            return post(self, *arguments, **options)

    return mock.patch.object(MessageController, "post", repaired)


def pytest_configure():
    send_none_as_text()
    name_arguments_of_pools()
    take_lost_claims_for_expired()
    for controller in (PoolsController, FlavorsController, CatalogueController):
        read_text(controller)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    with redis.Redis.from_url(os.environ["ZAQAR_TEST_REDIS_URL"]) as client:
        client.flushall()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if item.name != "test_gc":
        return (yield)
    with posts_in_the_past():
        return (yield)
