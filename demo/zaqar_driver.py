"""OpenStack Zaqar's Redis driver in small: it sends what that driver sends, command by command.

A message is a hash called by a bare id; a sorted set has a queue's ids in order; a claim is a hash, with a list of its
messages. Scripts touch the hashes without declaring them, and nothing in a message's key says which queue it is of: it
is the traffic that is hardest to spread over nodes. The scripts are our own, and do what Zaqar's do. Left out is only
that Zaqar asks before every operation whether the queue exists.
"""

import json
import time
import uuid

# KEYS: index, counter; ARGV: number of ids, ids.
APPEND = """
local first = tonumber(redis.call('GET', KEYS[2]) or 1)
local entries = {}
for i = 1, tonumber(ARGV[1]) do
    entries[#entries + 1] = first + i - 1
    entries[#entries + 1] = ARGV[1 + i]
end
redis.call('ZADD', KEYS[1], unpack(entries))
return redis.call('SET', KEYS[2], first + tonumber(ARGV[1]))
"""

# KEYS: index; ARGV: now, limit, claim, its expiry, and time to live and expiry for a message that would not outlive it.
CLAIM = """
local now, limit, ends = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local claimed, gone, start = {}, {}, 0
while #claimed < limit do
    local ids = redis.call('ZRANGE', KEYS[1], start, start + 99)
    if #ids == 0 then break end
    start = start + 100
    for _, id in ipairs(ids) do
        local claim, claim_ends, delayed, expires = unpack(redis.call('HMGET', id, 'c', 'c.e', 'd', 'e'))
        if not claim then
            gone[#gone + 1] = id
        elseif (claim == '' or tonumber(claim_ends) <= now) and tonumber(delayed) <= now then
            redis.call('HMSET', id, 'c', ARGV[3], 'c.e', ARGV[4])
            if tonumber(expires) < ends then redis.call('HMSET', id, 't', ARGV[5], 'e', ARGV[6]) end
            claimed[#claimed + 1] = id
            if #claimed == limit then break end
        end
    end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return claimed
"""

QUEUES, INDEXES = "queues_set", "msgset_index"
# Everything of a message but its body.
ENVELOPE = ["id", "t", "cr", "e", "u", "c", "c.e", "c.c", "d", "cs"]
MESSAGE_TTL_S, CLAIM_TTL_S, GRACE_S = 3600, 300, 60


def hmset(target, key, fields):
    """HMSET as Zaqar sends it: redis-py itself would send HSET today."""
    target.execute_command("HMSET", key, *(part for field in fields.items() for part in field))


def now_s():
    return int(time.time())


class ZaqarDriver:
    """Queues of one project, over one connection. A queue's name here is `<project>.<queue>`, as in its keys."""

    def __init__(self, client, max_claims, dead_letters):
        """What was claimed `max_claims` times goes to the queue `dead_letters` when it is claimed once more."""
        self.client = client
        self.max_claims = max_claims
        self.dead_letters = dead_letters
        self.append = client.register_script(APPEND)
        self.claim_some = client.register_script(CLAIM)

    def create_queue(self, queue):
        names = f"{queue.split('.')[0]}.{QUEUES}"
        if self.client.zrank(names, queue) is not None:
            return
        with self.client.pipeline() as pipe:
            pipe.zadd(names, {queue: 1})
            hmset(pipe, queue, {"c": 0, "cl": 0, "m": "{}", "t": now_s()})
            pipe.execute()
        with self.client.pipeline() as pipe:
            pipe.zadd(INDEXES, {f"{queue}.messages": 1})
            pipe.execute()

    def post(self, queue, bodies):
        """Their ids, in the same order."""
        now, ids = now_s(), []
        with self.client.pipeline() as pipe:
            for body in bodies:
                ids.append(str(uuid.uuid4()))
                message = {
                    "id": ids[-1], "t": MESSAGE_TTL_S, "cr": now, "e": now + MESSAGE_TTL_S, "u": "demo", "c": "",
                    "c.e": now, "c.c": 0, "d": now, "cs": "", "b": json.dumps(body),
                }  # fmt: skip
                hmset(pipe, ids[-1], message)
                pipe.expire(ids[-1], MESSAGE_TTL_S)
            pipe.execute()
        self.index(queue, ids)
        return ids

    def index(self, queue, ids):
        self.append(keys=[f"{queue}.messages", f"{queue}.rank_counter"], args=[len(ids), *ids])

    def read(self, ids):
        """Those messages that are (still) there, by id, in the same order."""
        if not ids:
            return {}
        with self.client.pipeline() as pipe:
            for message in ids:
                pipe.hgetall(message)
            hashes = pipe.execute()
        return {message: fields for message, fields in zip(ids, hashes) if fields}

    def page(self, queue, marker, limit, claimed=False):
        """A page of messages behind the last one of the page before. The first begins with the first message, or with
        the first that is free, if those that are claimed are not wanted."""
        index = f"{queue}.messages"
        if marker is None and claimed:
            start = 0
        elif marker is None:
            first = self.first_unclaimed(index, limit)
            start = (self.client.zrank(index, first) or 0) if first else 0
        else:
            rank = self.client.zrank(index, marker)
            start = rank + 1 if rank else 0
        return self.read(self.client.zrange(index, start, start + limit - 1))

    def first_unclaimed(self, index, limit):
        offset = 0
        while ids := self.client.zrange(index, offset, offset + limit - 1):
            offset += len(ids)
            envelopes = [self.client.hmget(message, ENVELOPE) for message in ids]
            for message, envelope in zip(ids, envelopes):
                fields = dict(zip(ENVELOPE, envelope))
                if fields["id"] and (not fields["c"] or int(fields["c.e"]) <= now_s()):
                    return message
        return None

    def claim(self, queue, limit):
        """The claim's id, its messages by id, and the ids of those that became dead letters instead."""
        claim, now = str(uuid.uuid4()), now_s()
        ends = now + CLAIM_TTL_S
        args = [now, limit, claim, ends, CLAIM_TTL_S + GRACE_S, ends + GRACE_S]
        ids = self.claim_some(keys=[f"{queue}.messages"], args=args)
        if not ids:
            return claim, {}, []
        messages = self.read(ids)
        with self.client.pipeline() as pipe:
            for message in ids:
                pipe.rpush(f"messages.{claim}", message)
            pipe.expire(f"messages.{claim}", CLAIM_TTL_S)
            hmset(pipe, claim, {"id": claim, "t": CLAIM_TTL_S, "e": ends, "n": len(ids)})
            pipe.expire(claim, CLAIM_TTL_S)
            pipe.zadd(f"{queue}.claims", {claim: ends})
            pipe.execute()
        dead = [message for message, fields in messages.items() if not self.count_claim(queue, message, fields)]
        for message in dead:
            del messages[message]
        return claim, messages, dead

    def count_claim(self, queue, message, fields):
        """One claim more; False if that is one too many, and it is a dead letter now."""
        count = int(fields["c.c"])
        with self.client.pipeline() as pipe:
            if count < self.max_claims:
                hmset(pipe, message, {"c.c": count + 1})
            else:
                hmset(pipe, message, {"t": fields["t"]})
                pipe.zrem(f"{queue}.messages", message)
                # First it is in the other queue, then no more in this one.
                self.index(self.dead_letters, [message])
            pipe.execute()
        return count < self.max_claims

    def release(self, queue, claim):
        """What is left of a claim can be claimed again."""
        if self.client.zscore(f"{queue}.claims", claim) is None or self.client.hmget(claim, "e") == [None]:
            return
        ids = self.client.lrange(f"messages.{claim}", 0, -1)
        envelopes = []
        if ids:
            with self.client.pipeline() as pipe:
                for message in ids:
                    pipe.hmget(message, ENVELOPE)
                envelopes = pipe.execute()
        with self.client.pipeline() as pipe:
            pipe.zrem(f"{queue}.claims", claim)
            pipe.delete(claim)
            pipe.delete(f"messages.{claim}")
            for message, envelope in zip(ids, envelopes):
                fields = dict(zip(ENVELOPE, envelope))
                if fields["id"]:
                    hmset(pipe, message, fields | {"c": "", "c.e": now_s()})
                    pipe.expire(message, fields["t"])
            pipe.execute()

    def delete(self, queue, message):
        """Whether it was there."""
        if not self.client.exists(message):
            return False
        claim, claim_ends = self.client.hmget(message, "c", "c.e")
        with self.client.pipeline() as pipe:
            pipe.delete(message)
            pipe.zrem(f"{queue}.messages", message)
            if claim and now_s() < int(claim_ends):
                pipe.lrem(f"messages.{claim}", 1, message)
                pipe.hincrby(claim, "n", -1)
            deleted, removed, *_ = pipe.execute()
        return (deleted, removed) == (1, 1)
