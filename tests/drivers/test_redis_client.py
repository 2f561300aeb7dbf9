"""redis-py."""

import asyncio
import threading
import time
from functools import partial

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from workers import run_all


def test_asyncio(flow):
    """asyncio: a queue, pipelines, pub/sub, a lock."""

    async def produce(client, done):
        for number in range(300):
            if number == 150:
                await asyncio.to_thread(flow.halfway)
            async with client.pipeline(transaction=True) as pipe:
                await pipe.lpush(f"async:{number % 3}", number).incr("async:sent").execute()
        await done.wait()

    async def consume(client, received, done):
        while len(received) < 300:
            item = await client.brpop([f"async:{turn}" for turn in range(3)], timeout=1)
            if item:
                received.append(int(item[1]))
                async with client.lock("async:lock", timeout=10, sleep=0.005):
                    count = int(await client.get("async:count") or 0) + 1
                    await client.set("async:count", count)
                await client.publish("async:done", item[1])
        done.set()

    async def watch(client, subscribed, seen):
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("async:done")
            async for message in pubsub.listen():
                subscribed.set()
                if message["type"] == "message":
                    seen.append(int(message["data"]))
                    if len(seen) == 300:
                        return

    async def everything():
        client = redis.asyncio.Redis(port=flow.port, decode_responses=True)
        received, seen, done, subscribed = [], [], asyncio.Event(), asyncio.Event()
        watcher = asyncio.create_task(watch(client, subscribed, seen))
        await asyncio.wait_for(subscribed.wait(), 5)
        await asyncio.gather(produce(client, done), *(consume(client, received, done) for _ in range(4)))
        assert sorted(received) == list(range(300))
        assert await client.get("async:sent") == await client.get("async:count") == "300"
        if flow.server.kind == "killed":
            watcher.cancel()
        else:
            await asyncio.wait_for(watcher, 5)
            assert sorted(seen) == list(range(300))
        await client.aclose()

    asyncio.run(asyncio.wait_for(everything(), 60))
    flow.jobs = 300


def test_blocking_pool(flow):
    """BlockingConnectionPool shared by many threads."""
    pool = redis.BlockingConnectionPool(
        port=flow.port, max_connections=5, timeout=20, decode_responses=True, health_check_interval=1
    )
    client = redis.Redis(connection_pool=pool)

    def work(worker):
        for turn in range(30):
            if worker == 0 and turn == 15:
                flow.halfway()
            assert client.incr(f"pool:{worker}") == turn + 1
            assert client.hset("pool:all", f"{worker}:{turn}", turn) == 1

    run_all(*(partial(work, worker) for worker in range(20)))
    assert client.hlen("pool:all") == 600
    # The check of a connection that has been idle.
    time.sleep(1.1)
    assert client.get("pool:3") == "30"
    pool.disconnect()
    flow.jobs = 600


def test_iterators(flow):
    """SCAN, HSCAN, SSCAN, ZSCAN to the end."""
    client = flow.client(db=3)
    other = flow.client(db=4)
    with client.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"scan:{number}", number).hset("scan:h", f"f{number}", number)
            pipe.sadd("scan:s", f"m{number}").zadd("scan:z", {f"m{number}": number})
        pipe.execute()
    other.set("scan:elsewhere", 1)
    flow.halfway()
    keys = list(client.scan_iter(match="scan:[0-9]*", count=37))
    assert len(keys) >= 500 and set(keys) == {f"scan:{number}" for number in range(500)}
    assert set(client.scan_iter(_type="hash")) == {"scan:h"}
    assert dict(client.hscan_iter("scan:h", count=20)) == {f"f{number}": str(number) for number in range(500)}
    assert set(client.sscan_iter("scan:s", match="m1*")) == {f"m{n}" for n in range(500) if str(n)[0] == "1"}
    assert dict(client.zscan_iter("scan:z")) == {f"m{number}": float(number) for number in range(500)}
    assert client.dbsize() == 503 and other.dbsize() == 1
    assert client.delete(*keys) == 500 and sorted(client.keys()) == ["scan:h", "scan:s", "scan:z"]
    flow.jobs = 500


def test_retries_and_timeouts(flow):
    """retries, health checks, connections that are cut."""
    client = flow.client(
        retry=Retry(ExponentialBackoff(), 5), socket_timeout=5, health_check_interval=1, client_name="flow", protocol=3
    )
    assert client.client_getname() == "flow"
    ended = threading.Event()

    def cut():
        # Every connection of that name but one's own is closed, as by an operator, or a firewall.
        knife = flow.client()
        while not ended.wait(0.05):
            for each in knife.client_list():
                if each["name"] == "flow":
                    knife.client_kill_filter(_id=each["id"])

    def work():
        try:
            for number in range(300):
                if number == 150:
                    flow.halfway()
                time.sleep(0.002)
                assert client.set(f"retry:{number}", number) is True
                assert client.get(f"retry:{number}") == str(number)
        finally:
            ended.set()

    run_all(work, cut)
    flow.jobs = 300
