// ioredis: pipelines, transactions, scripts, blocking pops, streams, subscriptions, WATCH.

import assert from "node:assert/strict";
import Redis from "ioredis";
import { connection, halfway, passed, range, until } from "./flow.mjs";

const redis = new Redis(connection);
const blocking = redis.duplicate();
const subscriber = redis.duplicate();

// Commands sent at once are answered in their order (automatic pipelining by the socket).
const counted = await Promise.all(range(200).map(() => redis.incr("io:counter")));
assert.deepEqual(counted, range(200).map((each) => each + 1));

const pipeline = redis.pipeline();
for (const each of range(50)) pipeline.hset("io:hash", `f${each}`, each).rpush(`io:list:${each % 5}`, each);
assert.ok((await pipeline.exec()).every(([error]) => error === null));
const replies = await redis.multi().hlen("io:hash").lrange("io:list:0", 0, -1).lpush("io:hash", 1).exec();
assert.deepEqual(replies[0], [null, 50]);
assert.deepEqual(replies[1], [null, range(10).map((each) => `${each * 5}`)]);
assert.match(String(replies[2][0]), /WRONGTYPE/);

redis.defineCommand("take", {
  numberOfKeys: 1,
  lua: "local left = redis.call('DECRBY', KEYS[1], ARGV[1]) if left < 0 then redis.call('SET', KEYS[1], 0) end return left",
});
await redis.set("io:stock", 50);
const taken = await Promise.all(range(25).map(() => redis.take("io:stock", 2)));
assert.deepEqual(taken, range(25).map((each) => 48 - 2 * each));

// A queue with one who waits.
const received = [];
const waiting = (async () => {
  for (;;) {
    const [key, job] = await blocking.brpop("io:queue:high", "io:queue:low", 20);
    assert.match(key, /^io:queue/);
    if (job === "stop") return;
    received.push(Number(job));
  }
})();
for (const each of range(300)) {
  if (each === 150) await halfway();
  await redis.lpush(each % 3 ? "io:queue:low" : "io:queue:high", each);
}
await until("300 jobs", () => received.length === 300);
await redis.lpush("io:queue:low", "stop");
await waiting;
assert.deepEqual(received.sort((a, b) => a - b), range(300));

// Streams, with a reader that waits.
await redis.xgroup("CREATE", "io:stream", "group", "$", "MKSTREAM");
const entries = (async () => {
  const seen = [];
  while (seen.length < 100) {
    const answer = await blocking.xreadgroup("GROUP", "group", "one", "COUNT", 10, "BLOCK", 5000, "STREAMS", "io:stream", ">");
    for (const [id, fields] of answer?.[0]?.[1] ?? []) {
      seen.push(Number(fields[1]));
      assert.equal(await redis.xack("io:stream", "group", id), 1);
    }
  }
  return seen;
})();
for (const each of range(100)) await redis.xadd("io:stream", "*", "number", each);
assert.deepEqual(await entries, range(100));

// Subscriptions.
const messages = [];
subscriber.on("message", (channel, text) => messages.push([channel, text]));
subscriber.on("pmessage", (pattern, channel, text) => messages.push([pattern, channel, text]));
assert.equal(await subscriber.subscribe("io:news", "io:other"), 2);
assert.equal(await subscriber.psubscribe("io:n*"), 3);
for (const each of range(100)) assert.equal(await redis.publish("io:news", each), 2);
await until("200 messages", () => messages.length === 200, 5);
assert.deepEqual(messages.filter((each) => each.length === 2).map((each) => Number(each[1])), range(100));
assert.deepEqual(messages.filter((each) => each.length === 3).map((each) => Number(each[2])), range(100));
assert.equal(await subscriber.unsubscribe("io:news", "io:other"), 1);
assert.equal(await subscriber.punsubscribe("io:n*"), 0);
assert.equal(await subscriber.ping(), "PONG");

// Optimistic transactions.
await redis.watch("io:watched");
await blocking.set("io:watched", 1);
assert.equal(await redis.multi().set("io:watched", 2).exec(), null);
await redis.watch("io:watched");
assert.deepEqual(await redis.multi().incr("io:watched").exec(), [[null, 2]]);

// Scans.
const found = new Set();
for await (const keys of redis.scanStream({ match: "io:list:*", count: 10 })) keys.forEach((key) => found.add(key));
assert.equal(found.size, 5);
passed(200 + 50 + 25 + 300 + 100 + 100);
