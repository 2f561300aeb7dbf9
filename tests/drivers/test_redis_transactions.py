"""redis-py."""

import random
import threading
import time
from functools import partial

import pytest
import redis

from workers import run_all


def test_pipelines(flow):
    """pipelines, transactional and not."""
    client = flow.client()
    for turn in range(60):
        if turn == 30:
            flow.halfway()
        pipe = client.pipeline(transaction=turn % 2 == 0)
        for number in range(10):
            pipe.set(f"plain:{number}", turn).incr("total").rpush(f"list:{number}", turn).hset("h", number, turn)
        pipe.lrange("list:3", 0, -1).mget([f"plain:{number}" for number in range(10)]).hlen("h").expire("h", 100)
        replies = pipe.execute()
        expected = []
        for number in range(10):
            expected += [True, turn * 10 + number + 1, turn + 1, 1 if turn == 0 else 0]
        assert replies == expected + [[str(each) for each in range(turn + 1)], [str(turn)] * 10, 10, True]
    # One wrong command among good ones: the good ones are done, the wrong one raises.
    for transaction in [True, False]:
        pipe = client.pipeline(transaction=transaction).set("good:1", 1).lpush("good:1", 1).set("good:2", 2)
        replies = pipe.execute(raise_on_error=False)
        assert replies[0] is True and replies[2] is True and isinstance(replies[1], redis.ResponseError)
        with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH good:1 1\) of pipeline caused error: WRONGTYPE"):
            client.pipeline(transaction=transaction).set("good:1", 1).lpush("good:1", 1).execute()
    flow.jobs = 60


def test_optimistic_transactions(flow):
    """WATCH with retries, on one key and on two."""
    clerks, turns, accounts = 4, 75, 6
    setup = flow.client()
    for account in range(accounts):
        setup.set(f"account:{account}", 1000)
    tries = []

    def transfer(rng, clerk):
        client = flow.client()
        for turn in range(turns):
            if clerk == 0 and turn == turns // 2:
                flow.halfway()
            source, target = (f"account:{which}" for which in rng.sample(range(accounts), 2))
            amount = rng.randrange(1, 5)

            def move(pipe):
                tries.append(clerk)
                left, right = int(pipe.get(source)), int(pipe.get(target))
                pipe.multi()
                pipe.set(source, left - amount).set(target, right + amount).incr("transfers")

            client.transaction(move, source, target)

    def count_by_hand():
        client = flow.client()
        for _ in range(turns):
            with client.pipeline() as pipe:
                while True:
                    try:
                        pipe.watch("counter")
                        value = int(pipe.get("counter") or 0)
                        pipe.multi()
                        pipe.set("counter", value + 1)
                        assert pipe.execute() == [True]
                        break
                    except redis.WatchError:
                        continue

    run_all(*(partial(transfer, random.Random(clerk), clerk) for clerk in range(clerks)), count_by_hand, count_by_hand)
    balances = setup.mget([f"account:{account}" for account in range(accounts)])
    assert sum(map(int, balances)) == 1000 * accounts
    assert setup.get("transfers") == str(clerks * turns)
    assert setup.get("counter") == str(2 * turns)
    flow.jobs = clerks * turns + 2 * turns


def test_watch_details(flow):
    """WATCH: what breaks a transaction and what does not."""
    client, other = flow.client(), flow.client()
    client.set("seen", 1)
    cases = {
        "nothing": (lambda: None, False),
        "read": (lambda: other.get("seen"), False),
        "another key": (lambda: other.set("unseen", 1), False),
        "write": (lambda: other.set("seen", 2), True),
        "touch": (lambda: other.expire("seen", 100), True),
        "delete": (lambda: other.delete("seen"), True),
        "delete what is not there": (lambda: other.delete("seen"), False),
        "create": (lambda: other.lpush("seen", 1), True),
        "pop to nothing": (lambda: other.lpop("seen"), True),
        "script": (lambda: other.eval("return redis.call('SET', KEYS[1], 1)", 1, "seen"), True),
        "transaction": (lambda: other.pipeline().incr("seen").execute(), True),
    }
    for name, (change, breaks) in cases.items():
        pipe = client.pipeline()
        pipe.watch("seen")
        change()
        pipe.multi()
        pipe.incr("done")
        if breaks:
            with pytest.raises(redis.WatchError):
                pipe.execute()
                pytest.fail(f"{name} did not break the transaction")
        else:
            pipe.execute()
    assert client.get("done") == str(sum(not breaks for _, breaks in cases.values()))
    pipe = client.pipeline()
    pipe.watch("seen")
    other.set("seen", 3)
    pipe.unwatch()
    assert pipe.incr("done").execute() == [5]
    flow.jobs = len(cases) + 1


def test_locks(flow):
    """Lock (Lua): one holder at a time."""
    holders, turns = 4, 60
    inside = threading.Semaphore(1)

    def work(worker):
        client = flow.client()
        for turn in range(turns):
            if worker == 0 and turn == turns // 2:
                flow.halfway()
            with client.lock("lock", timeout=20, sleep=0.002, blocking_timeout=30):
                assert inside.acquire(blocking=False), "two have the lock"
                value = int(client.get("guarded") or 0)
                client.set("guarded", value + 1)
                inside.release()

    run_all(*(partial(work, worker) for worker in range(holders)))
    client = flow.client()
    assert client.get("guarded") == str(holders * turns)
    lock, second = client.lock("brief", timeout=0.3), flow.client().lock("brief", timeout=0.3)
    assert lock.acquire() and not second.acquire(blocking=False)
    assert lock.extend(0.2) and lock.owned() and lock.locked() and lock.reacquire()
    assert second.acquire(blocking_timeout=3)
    with pytest.raises(redis.exceptions.LockNotOwnedError):
        lock.release()
    second.release()
    assert client.exists("brief") == 0
    flow.jobs = holders * turns


def test_scripts(flow):
    """Script objects, NOSCRIPT, scripts in pipelines."""
    client = flow.client()
    take = client.register_script(
        """
        local left = tonumber(redis.call('HGET', KEYS[1], 'left') or ARGV[1])
        if left < 1 then return redis.error_reply('EMPTY nothing is left') end
        redis.call('HSET', KEYS[1], 'left', left - 1)
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return {left - 1, redis.call('TYPE', KEYS[1])['ok'], ARGV[3]}
        """
    )

    def work(worker):
        mine = flow.client()
        got = []
        for turn in range(60):
            if worker == 0 and turn == 30:
                flow.halfway()
            try:
                got.append(take(keys=["bucket"], args=[200, 60_000, "x"], client=mine)[0])
            except redis.ResponseError as error:
                assert str(error).startswith("EMPTY nothing is left")
        return got

    got = sum(run_all(*(partial(work, worker) for worker in range(4))), [])
    assert sorted(got) == list(range(200))
    assert 0 < client.pttl("bucket") <= 60_000
    assert client.script_exists(take.sha) == [True]
    assert client.script_flush() is True
    assert client.script_exists(take.sha) == [False]
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(take.sha, 1, "other", 5, 1000, "y")
    pipe = client.pipeline()
    take(keys=["other"], args=[5, 60_000, "y"], client=pipe)
    pipe.hget("other", "left")
    assert pipe.execute() == [[4, "hash", "y"], "4"]
    assert client.eval("return {1, 'two', false, {3.9, ARGV[1]}}", 0, "four") == [1, "two", None, [3, "four"]]
    flow.jobs = 240
