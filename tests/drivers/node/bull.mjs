// Bull: jobs, delays, retries, failures.

import assert from "node:assert/strict";
import Queue from "bull";
import { connection, prefix, halfway, passed, range, until } from "./flow.mjs";

const queue = new Queue("bull-work", { redis: connection, prefix });
const runs = new Map();
queue.process("*", 4, async (job) => {
  runs.set(job.id, (runs.get(job.id) ?? 0) + 1);
  if (job.name === "flaky" && job.attemptsMade < 2) throw new Error("not yet");
  if (job.name === "bad") throw new Error("no");
  return job.data.number * 2;
});
const jobs = [];
for (const number of range(200)) {
  if (number === 100) await halfway();
  jobs.push(await queue.add("plain", { number }));
}
for (const number of range(30)) jobs.push(await queue.add("delayed", { number }, { delay: 300 }));
for (const number of range(30)) jobs.push(await queue.add("flaky", { number }, { attempts: 3, backoff: 50 }));
const bad = await Promise.all(range(10).map((number) => queue.add("bad", { number })));
assert.deepEqual(await Promise.all(jobs.map((job) => job.finished())), jobs.map((job) => job.data.number * 2));
await until("the bad ones have failed", async () => (await queue.getFailedCount()) === 10);
for (const job of [...jobs, ...bad]) assert.equal(runs.get(job.id), job.name === "flaky" ? 3 : 1, `${job.name} ${job.id}`);
assert.equal(await queue.getCompletedCount(), jobs.length);
await queue.close();
passed(200 + 30 + 90 + 10);
