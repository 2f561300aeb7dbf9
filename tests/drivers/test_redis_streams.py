"""redis-py."""

import time
from functools import partial

import pytest

from workers import run_all


@pytest.mark.needs_7
def test_consumer_groups(flow):
    """streams with consumer groups, one consumer dies."""
    stream, group, count = "events", "workers", 500
    flow.client().xgroup_create(stream, group, id="0", mkstream=True)

    def produce():
        client = flow.client()
        ids = []
        for number in range(count):
            if number == count // 2:
                flow.halfway()
            ids.append(client.xadd(stream, {"number": number}, maxlen=10_000, approximate=True))
            time.sleep(0.001)
        assert ids == sorted(ids, key=lambda id: tuple(map(int, id.split("-"))))
        return ids

    def consume(name, dies):
        client = flow.client()
        done = []
        while answer := client.xreadgroup(group, name, {stream: ">"}, count=10, block=1000):
            entries = dict(answer)[stream] if isinstance(answer, list) else answer[stream][0]
            if dies and len(done) >= 50:
                return done
            for id, _ in entries:
                assert client.xack(stream, group, id) == 1
                done.append(id)
        return done

    ids, *done = run_all(
        produce, partial(consume, "a", False), partial(consume, "b", False), partial(consume, "c", True)
    )
    acknowledged = sum(done, [])
    client = flow.client()
    pending = client.xpending(stream, group)
    left = client.xpending_range(stream, group, "-", "+", 100)
    assert pending["pending"] == len(left) > 0
    assert {entry["consumer"] for entry in left} == {"c"}
    # What the dead one had is claimed by another, when it has been idle for long enough.
    assert client.xautoclaim(stream, group, "a", min_idle_time=600_000)[1] == []
    time.sleep(0.1)
    claimed, start = [], "0-0"
    while True:
        start, entries, deleted = client.xautoclaim(stream, group, "a", min_idle_time=50, start_id=start, count=3)
        claimed += [id for id, _ in entries]
        assert not deleted
        if start == "0-0":
            break
    assert claimed == [entry["message_id"] for entry in left]
    assert client.xpending_range(stream, group, "-", "+", 100)[0]["times_delivered"] == 2
    assert client.xack(stream, group, *claimed) == len(claimed)
    assert sorted(acknowledged + claimed) == sorted(ids)
    (info,) = client.xinfo_groups(stream)
    assert (info["pending"], info["lag"], info["entries-read"]) == (0, 0, count)
    assert client.xtrim(stream, maxlen=10, approximate=False) == count - 10
    assert client.xlen(stream) == 10
    flow.jobs = count


@pytest.mark.parametrize("protocol", [2, 3])
def test_tail(flow, protocol):
    """XREAD BLOCK over two streams."""
    count = 300
    streams = [f"log:{protocol}:a", f"log:{protocol}:b"]

    def produce():
        client = flow.client(protocol=protocol)
        ids = {stream: [] for stream in streams}
        for number in range(count):
            if number == count // 2:
                flow.halfway()
            stream = streams[number % 2]
            ids[stream].append(client.xadd(stream, {"number": number}))
            time.sleep(0.001)
        return ids

    def tail():
        client = flow.client(protocol=protocol)
        last = {stream: "0-0" for stream in streams}
        seen = {stream: [] for stream in streams}
        while answer := client.xread(last, block=1500):
            batches = answer if isinstance(answer, list) else [(name, lists[0]) for name, lists in answer.items()]
            for stream, entries in batches:
                seen[stream] += [id for id, _ in entries]
                last[stream] = seen[stream][-1]
        return seen

    ids, *seen = run_all(produce, tail, tail)
    assert seen == [ids, ids]
    flow.jobs = count
