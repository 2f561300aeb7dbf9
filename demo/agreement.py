"""Do the nodes hold the same? Each is read directly, behind the proxy's back, key by key."""

from collections import Counter
from dataclasses import dataclass, field

import redis

CHUNK = 200


@dataclass
class Agreement:
    """How many keys were compared, of which types, how many with a time to live; and what is wrong."""

    keys: int = 0
    with_ttl: int = 0
    types: Counter = field(default_factory=Counter)
    faults: list = field(default_factory=list)
    fault_count: int = 0

    def fault(self, text):
        self.fault_count += 1
        if len(self.faults) < 10:
            self.faults.append(text)


# When a key expires, of a server before 7.0, which only tells what is left: from a moment in which its clock has not gone on.
DEADLINE = """
local function now() local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000) end
while true do
    local before, left, after = now(), redis.call('PTTL', KEYS[1]), now()
    if left < 0 then return left end
    if before == after then return before + left end
end
"""


def read_node(address):
    """{(database, key): (type, digest of the value, time of expiry in ms)}"""
    host, port = address.rsplit(":", 1)
    values = {}
    tells_deadlines = int(redis.Redis(host=host, port=int(port)).info("server")["redis_version"].split(".")[0]) >= 7
    # Database 15 is the proxy's own account of what it has done here.
    for database in range(15):
        client = redis.Redis(host=host, port=int(port), db=database)
        keys = list(client.scan_iter(count=1000))
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            pipeline = client.pipeline(transaction=False)
            for key in chunk:
                pipeline.type(key)
                pipeline.execute_command("DEBUG", "DIGEST-VALUE", key)
                if tells_deadlines:
                    pipeline.execute_command("PEXPIRETIME", key)
                else:
                    pipeline.eval(DEADLINE, 1, key)
            replies = pipeline.execute()
            for index, key in enumerate(chunk):
                kind, digest, expires = replies[3 * index : 3 * index + 3]
                values[database, key] = (kind.decode(), bytes(digest[0]), expires)
        client.close()
    return values


def compare_nodes(nodes, replicas):
    """Every key must be on exactly `replicas` nodes, with the same value and the same time of expiry."""
    agreement = Agreement()
    names = [node["name"] for node in nodes]
    try:
        contents = [read_node(node["address"]) for node in nodes]
    except redis.RedisError as error:
        agreement.fault(f"a node cannot be read: {error}")
        return agreement
    for entry in sorted(set().union(*contents)):
        database, key = entry
        key = key.decode(errors="replace")
        holders = [name for name, content in zip(names, contents) if entry in content]
        copies = {content[entry] for content in contents if entry in content}
        kind, _, expires = next(iter(copies))
        agreement.keys += 1
        agreement.types[kind] += 1
        agreement.with_ttl += expires > 0
        if len(holders) != replicas:
            agreement.fault(f"{key} ({kind}) is on {', '.join(holders)}, and should be on {replicas} nodes")
        elif len(copies) != 1:
            what = "time of expiry" if len({copy[1] for copy in copies}) == 1 else "value"
            agreement.fault(f"{key} ({kind}) has not the same {what} on {', '.join(holders)}")
    return agreement
