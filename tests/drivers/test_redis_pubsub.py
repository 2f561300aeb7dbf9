"""redis-py."""

import time

import pytest

from workers import run_all

COUNT = 300


def subscribed(subscriber, count):
    """Reads the confirmations."""
    for _ in range(count):
        message = subscriber.get_message(timeout=5)
        assert message and message["type"].endswith("subscribe"), message


@pytest.mark.parametrize("protocol", [2, 3])
def test_channels_and_patterns(flow, protocol):
    """pub/sub: channels and patterns, in order."""
    client = flow.client(protocol=protocol)
    exact, wide = client.pubsub(), flow.client(protocol=protocol).pubsub()
    exact.subscribe("news:a", "news:b", "stop")
    wide.psubscribe("news:*", "st?p")
    subscribed(exact, 3)
    subscribed(wide, 2)
    assert client.pubsub_numsub("news:a", "news:b", "news:c") == [("news:a", 1), ("news:b", 1), ("news:c", 0)]
    assert sorted(client.pubsub_channels("news:*")) == ["news:a", "news:b"]
    assert client.pubsub_numpat() == 2

    def publish():
        publisher = flow.client(protocol=protocol)
        for number in range(COUNT):
            channel = "abc"[number % 3]
            assert publisher.publish(f"news:{channel}", number) == (1 if channel == "c" else 2)
            time.sleep(0.001)
        publisher.publish("stop", "")

    def listen(subscriber):
        got = []
        for message in subscriber.listen():
            if message["channel"] == "stop":
                return got
            got.append((message["type"], message["pattern"], message["channel"], message["data"]))

    _, one, two = run_all(publish, lambda: listen(exact), lambda: listen(wide))
    sent = [(f"news:{'abc'[number % 3]}", str(number)) for number in range(COUNT)]
    by_channel = lambda got, channel: [each for each in got if each[2] == channel]
    for channel in ["news:a", "news:b", "news:c"]:
        texts = [(each, text) for each, text in sent if each == channel]
        assert by_channel(two, channel) == [("pmessage", "news:*", *each) for each in texts]
        if channel != "news:c":
            assert by_channel(one, channel) == [("message", None, *each) for each in texts]
    assert len(two) == COUNT and len(one) == COUNT * 2 // 3
    exact.unsubscribe("news:a")
    assert exact.get_message(timeout=5)["type"] == "unsubscribe"
    if protocol == 2:  # With 3 this driver takes the answer, which is no push, for a message.
        exact.ping()
        assert exact.get_message(timeout=5)["type"] == "pong"
    assert client.publish("news:a", "x") == 1
    exact.close()
    wide.close()
    flow.jobs = COUNT


def test_handlers(flow):
    """pub/sub: handlers in a thread, requests and answers."""
    client = flow.client()
    answers = {}
    requests = client.pubsub(ignore_subscribe_messages=True)
    replies = client.pubsub(ignore_subscribe_messages=True)
    server = flow.client()
    requests.psubscribe(**{"ask:*": lambda message: server.publish(f"answer:{message['channel'][4:]}", message["data"])})
    replies.psubscribe(**{"answer:*": lambda message: answers.__setitem__(message["channel"], message["data"])})
    threads = [each.run_in_thread(sleep_time=0.01, daemon=True) for each in [requests, replies]]
    try:
        end = time.monotonic() + 5
        while client.pubsub_numpat() < 2 and time.monotonic() < end:
            time.sleep(0.01)
        for number in range(COUNT):
            assert client.publish(f"ask:{number}", number * 2) == 1
        while len(answers) < COUNT and time.monotonic() < end:
            time.sleep(0.01)
        assert answers == {f"answer:{number}": str(number * 2) for number in range(COUNT)}
    finally:
        for thread in threads:
            thread.stop()
            thread.join(5)
    flow.jobs = COUNT


def test_across_a_fault(flow):
    """pub/sub: subscribers go on."""
    client = flow.client()
    subscriber = client.pubsub()
    channels = [f"lasting:{number}" for number in range(8)]
    subscriber.subscribe(*channels)
    subscribed(subscriber, len(channels))
    for number in range(COUNT):
        if number == COUNT // 2:
            flow.halfway()
        client.publish(channels[number % 8], number)
        client.set("between", number)
        time.sleep(0.001)
    got = []
    while message := subscriber.get_message(timeout=0.5):
        assert message["type"] == "message", message
        got.append(int(message["data"]))
    # Publishing is at most once; what comes, comes in the channel's order, and without a fault nothing is missing.
    assert all(mine == sorted(set(mine)) for mine in ([n for n in got if n % 8 == each] for each in range(8)))
    if flow.server.kind != "killed":
        assert sorted(got) == list(range(COUNT))
    assert len(got) > COUNT * 0.9
    subscriber.close()
    flow.jobs = COUNT
