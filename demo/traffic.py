"""Clients that know of one Redis at one address: producers, consumers, and one that uses every other type of value."""

import itertools
import random
import time

from clients import Account, Clients

PRODUCERS = 4
# Two consumers share each of these queues and poll them with LPOP.
QUEUES = ["orders", "emails", "invoices", "thumbnails"]
# From here one consumer moves a message to a second list first, and removes it from there when its work is done.
TODO, DOING = "{reports}:todo", "{reports}:doing"
POLL_S = 0.01
COUNTERS = 8
MEMBERS = 24


def sent_counter(queue):
    """Counts what is sent to a queue in transactions, and lives where the queue lives: they have one hash tag."""
    return TODO.replace("todo", "sent") if queue == TODO else f"sent:{{{queue}}}"


class Ledger(Account):
    """What was acknowledged to whom, and what reached whom. Every message is `<producer>:<number>:<queue>`."""

    UNKNOWN, ACKNOWLEDGED = 1, 2

    def __init__(self, seconds):
        super().__init__(seconds)
        # By producer and number: one byte for the outcome of sending it, one for how often it was delivered.
        self.sent = [bytearray() for _ in range(PRODUCERS)]
        self.delivered = [bytearray() for _ in range(PRODUCERS)]
        self.duplicated = self.reordered = self.invented = 0
        # What the counters must stand at: acknowledged increments, and those whose outcome is unknown.
        self.counted = {}
        self.uncertain = {}

    def next_messages(self, producer, queue, count):
        """New messages, of unknown outcome until they are acknowledged."""
        with self.lock:
            first = len(self.sent[producer])
            self.sent[producer].extend([self.UNKNOWN] * count)
            self.delivered[producer].extend([0] * count)
        return [f"{producer}:{number}:{queue}" for number in range(first, first + count)]

    def acknowledged(self, producer, messages):
        with self.lock:
            for message in messages:
                self.sent[producer][int(message.split(":")[1])] = self.ACKNOWLEDGED
            self.acknowledged_count += len(messages)

    def received(self, last_numbers, queue, message):
        """One message out of `queue`; `last_numbers` is what this consumer saw of each producer."""
        producer, number, sent_to = message.split(":", 2)
        producer, number = int(producer), int(number)
        with self.lock:
            if sent_to != queue or producer >= PRODUCERS or number >= len(self.delivered[producer]):
                self.invented += 1
                return
            self.delivered_count += 1
            if self.delivered[producer][number]:
                self.duplicated += 1
            elif number < last_numbers.get(producer, -1):
                self.reordered += 1
            self.delivered[producer][number] = min(self.delivered[producer][number] + 1, 255)
        last_numbers[producer] = max(number, last_numbers.get(producer, -1))

    def lost(self):
        pairs = (zip(sent, got) for sent, got in zip(self.sent, self.delivered))
        return sum(sent == self.ACKNOWLEDGED and not got for sent, got in itertools.chain.from_iterable(pairs))

    def count(self, counter, amount, known):
        with self.lock:
            counters = self.counted if known else self.uncertain
            counters[counter] = counters.get(counter, 0) + amount


class Traffic(Clients):
    """All clients of the first act."""

    def __init__(self, port, rate, seed, seconds):
        super().__init__(port, Ledger(seconds))
        self.rate = rate
        self.counter_values = {}
        producers = [(self.produce, index, random.Random(f"{seed}-{index}")) for index in range(PRODUCERS)]
        producers.append((self.use_other_types, random.Random(f"{seed}-others")))
        consumers = [(self.consume, queue) for queue in QUEUES for _ in range(2)] + [(self.consume_reliably,)]
        self.producers = [self.thread(*each) for each in producers]
        self.consumers = [self.thread(*each) for each in consumers]

    def description(self):
        queues = len(QUEUES) + 1
        return f"{PRODUCERS} producers, {len(self.consumers)} consumers, {queues} queues, {self.rate} messages/s"

    def produce(self, producer, rng):
        client = self.client()
        next_at = time.perf_counter()
        for queue in itertools.cycle(rng.sample([*QUEUES, TODO], len(QUEUES) + 1)):
            if not self.producing.is_set():
                return
            # Every fourth time several at once, in a transaction with a counter.
            several = rng.random() < 0.25
            messages = self.ledger.next_messages(producer, queue, rng.randint(2, 5) if several else 1)
            if several:
                self.produce_transaction(client, producer, queue, messages)
            else:
                _, done = self.call("RPUSH", lambda: client.rpush(queue, messages[0]))
                if done:
                    self.ledger.acknowledged(producer, messages)
            next_at = max(next_at + len(messages) * PRODUCERS / self.rate, time.perf_counter() - 0.2)
            time.sleep(max(next_at - time.perf_counter(), 0))

    def produce_transaction(self, client, producer, queue, messages):
        pipeline = client.pipeline(transaction=True)
        for message in messages:
            pipeline.rpush(queue, message)
        pipeline.incrby(sent_counter(queue), len(messages))
        replies, done = self.call("MULTI … EXEC", pipeline.execute)
        self.ledger.count(sent_counter(queue), len(messages), done)
        if done:
            self.ledger.acknowledged(producer, messages)
            if len(replies) != len(messages) + 1:
                self.ledger.error("MULTI … EXEC", ValueError(f"{len(replies)} replies"))

    def consume(self, queue):
        client = self.client()
        last_numbers = {}
        while self.consuming.is_set():
            # Asked before the call: only then does an empty queue stay empty.
            more_may_come = any(thread.is_alive() for thread in self.producers)
            message, done = self.call("LPOP", lambda: client.lpop(queue))
            if message is not None:
                self.ledger.received(last_numbers, queue, message)
            elif done and not more_may_come:
                return
            else:
                time.sleep(POLL_S)

    def consume_reliably(self):
        client = self.client()
        last_numbers = {}
        while self.consuming.is_set():
            more_may_come = any(thread.is_alive() for thread in self.producers)
            message, done = self.call("LMOVE", lambda: client.lmove(TODO, DOING, "LEFT", "RIGHT"))
            if message is not None:
                self.ledger.received(last_numbers, TODO, message)
                removed, done = self.call("LREM", lambda: client.lrem(DOING, 1, message))
                if done and removed != 1:
                    self.ledger.error("LREM", ValueError(f"removed {removed} of a message that was just moved there"))
            elif done and not more_may_come:
                return
            else:
                time.sleep(POLL_S)

    def use_other_types(self, rng):
        """Keys of every type, with and without a time to live, changed all the time and left in the pool at the end."""
        client = self.client()
        script = client.register_script("redis.call('HSET', KEYS[1], unpack(ARGV)) return redis.call('HLEN', KEYS[1])")
        for turn in itertools.count():
            if not self.producing.is_set():
                return
            which, member, value = turn % MEMBERS, f"m{rng.randrange(200)}", rng.randrange(10**6)
            counter = f"counter:{turn % COUNTERS}"
            _, done = self.call("INCR", lambda: client.incr(counter))
            self.ledger.count(counter, 1, done)
            name = rng.choice(["string", "hash", "list", "set", "zset", "stream", "bitmap", "hyperloglog"])
            key = f"{name}:{which}"
            operations = {
                "string": [
                    ("SET", lambda: client.set(key, value)),
                    ("SET EX", lambda: client.set(key, value, ex=3600 + value % 1000)),
                    ("SET PX", lambda: client.set(f"brief:{which}", value, px=200)),
                    ("APPEND", lambda: client.append(key, "x")),
                    ("EXPIRE", lambda: client.expire(key, 7200)),
                    ("DEL", lambda: client.delete(key)),
                ],
                "hash": [
                    ("HSET", lambda: client.hset(key, member, value)),
                    ("HINCRBY", lambda: client.hincrby(key, "total", 1)),
                    ("HDEL", lambda: client.hdel(key, member)),
                    ("EVALSHA", lambda: script(keys=[key], args=[member, value])),
                ],
                "list": [
                    ("RPUSH", lambda: client.rpush(key, value)),
                    ("LPUSH", lambda: client.lpush(key, member, value)),
                    ("LTRIM", lambda: client.ltrim(key, 0, 99)),
                ],
                "set": [
                    ("SADD", lambda: client.sadd(key, member, value)),
                    ("SREM", lambda: client.srem(key, member)),
                    ("SPOP", lambda: client.spop(key)),
                ],
                "zset": [
                    ("ZADD", lambda: client.zadd(key, {member: value})),
                    ("ZINCRBY", lambda: client.zincrby(key, 1.5, member)),
                    ("ZPOPMIN", lambda: client.zpopmin(key)),
                    ("PEXPIRE", lambda: client.pexpire(key, 3_600_000 + value)),
                ],
                "stream": [
                    ("XADD", lambda: client.xadd(key, {"member": member, "value": value}, maxlen=200)),
                ],
                "bitmap": [("SETBIT", lambda: client.setbit(key, value % 4096, value & 1))],
                "hyperloglog": [("PFADD", lambda: client.pfadd(key, value))],
            }
            operation, function = rng.choice(operations[name])
            self.call(operation, function)
            time.sleep(0.003)

    def read_counters(self):
        """Through the proxy: every counter that was incremented, as it stands in the end."""
        client = self.client()
        for counter in sorted(self.ledger.counted):
            value, _ = self.call("GET", lambda: client.get(counter))
            self.counter_values[counter] = int(value or 0)

    def wrong_counters(self):
        """Those that do not stand at what was acknowledged (or, after errors, may have been done)."""
        wrong = []
        for counter, value in self.counter_values.items():
            least = self.ledger.counted[counter]
            most = least + self.ledger.uncertain.get(counter, 0)
            if not least <= value <= most:
                wrong.append(f"{counter} is {value}, and {least} were acknowledged")
        return wrong
