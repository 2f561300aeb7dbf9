"""A worker of the benchmark: cycles of post, claim and delete by Zaqar's own driver, as a Zaqar service has it.

    python cycles.py URI QUEUE BATCH

Says `ready`, and then does cycles for as many seconds as each line of its input says, and says how many messages went through them.
"""

import sys
import time
import uuid

import service

PROJECT, TTL_S = "bench", 3600
BODY = "b" * 200


def main(uri, queue, batch):
    storage, _ = service.storage(uri)
    storage.queue_controller.create(queue, project=PROJECT)
    me = uuid.uuid4()
    posted = [{"ttl": TTL_S, "body": BODY}] * batch
    claim = {"ttl": TTL_S, "grace": TTL_S}
    print("ready", flush=True)
    for line in sys.stdin:
        end = time.monotonic() + float(line)
        done = 0
        while time.monotonic() < end:
            storage.message_controller.post(queue, posted, client_uuid=me, project=PROJECT)
            name, messages = storage.claim_controller.create(queue, claim, project=PROJECT, limit=batch)
            for message in messages:
                storage.message_controller.delete(queue, message["id"], project=PROJECT, claim=name)
                done += 1
        print(done, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
