// node-redis: the same in its own words, with RESP 2 and RESP 3.

import assert from "node:assert/strict";
import { createClient } from "redis";
import { connection, halfway, passed, range, until } from "./flow.mjs";

async function flow(RESP) {
  const connect = () => createClient({ socket: connection, RESP }).on("error", (error) => { throw error; }).connect();
  const client = await connect();
  const blocking = await connect();
  const subscriber = await connect();
  const key = (name) => `nr${RESP}:${name}`;

  assert.deepEqual(await Promise.all(range(200).map(() => client.incr(key("counter")))), range(200).map((each) => each + 1));

  const transaction = client.multi();
  for (const each of range(20)) transaction.hSet(key("hash"), `f${each}`, each).rPush(key(`list:${each % 3}`), `${each}`);
  assert.equal((await transaction.exec()).length, 40);
  assert.deepEqual({ ...(await client.hGetAll(key("hash"))) }, Object.fromEntries(range(20).map((each) => [`f${each}`, `${each}`])));
  assert.deepEqual(await client.zAdd(key("zset"), range(10).map((value) => ({ score: value / 2, value: `${value}` }))), 10);
  assert.equal(await client.zScore(key("zset"), "3"), 1.5);

  const received = [];
  const waiting = (async () => {
    while (received.length < 200) {
      const item = await blocking.blPop([key("high"), key("low")], 20);
      received.push(Number(item.element));
    }
  })();
  for (const each of range(200)) {
    if (each === 100 && RESP === 3) await halfway();
    await client.rPush(key(each % 2 ? "high" : "low"), `${each}`);
  }
  await waiting;
  assert.deepEqual(received.sort((a, b) => a - b), range(200));

  const heard = [];
  await subscriber.subscribe(key("news"), (message) => heard.push(Number(message)));
  await subscriber.pSubscribe(key("n*"), (message, channel) => heard.push(`${channel} ${message}`));
  for (const each of range(100)) assert.equal(await client.publish(key("news"), `${each}`), 2);
  await until("200 messages", () => heard.length === 200, 5);
  assert.deepEqual(heard.filter((each) => typeof each === "number"), range(100));
  await subscriber.unsubscribe(key("news"));
  await subscriber.pUnsubscribe(key("n*"));
  assert.equal(String(await subscriber.ping()), "PONG");

  await client.watch(key("watched"));
  await blocking.set(key("watched"), "1");
  await assert.rejects(client.multi().set(key("watched"), "2").exec(), /watched/i);

  const keys = new Set();
  for await (const batch of client.scanIterator({ MATCH: key("list:*") })) [batch].flat().forEach((each) => keys.add(each));
  assert.equal(keys.size, 3);
  for (const each of [client, blocking, subscriber]) each.destroy();
}

await flow(2);
await flow(3);
passed(2 * (200 + 20 + 200 + 100));
