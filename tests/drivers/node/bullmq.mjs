// BullMQ: jobs, delays, retries, priorities, events, flows (parents and children), repeated jobs, rate limits.

import assert from "node:assert/strict";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";
import { connection, prefix, oneQueue, halfway, passed, range, sleep, until } from "./flow.mjs";

const options = { connection, prefix };
const queue = new Queue("work", options);
const events = new QueueEvents("work", options);
await events.waitUntilReady();
const completed = new Map();
const failed = new Map();
events.on("completed", ({ jobId }) => completed.set(jobId, (completed.get(jobId) ?? 0) + 1));
events.on("failed", ({ jobId }) => failed.set(jobId, (failed.get(jobId) ?? 0) + 1));

const runs = new Map();
const process = async (job) => {
  runs.set(job.id, (runs.get(job.id) ?? 0) + 1);
  if (job.name === "flaky" && job.attemptsMade < 2) throw new Error("not yet");
  if (job.name === "bad") throw new Error(`no ${job.data.number}`);
  await job.updateProgress(50);
  return job.data.number * 2;
};
const workers = range(3).map(() => new Worker("work", process, { ...options, concurrency: 4 }));

const first = await queue.addBulk(range(100).map((number) => ({ name: "plain", data: { number } })));
await halfway();
const second = [];
for (const number of range(100)) second.push(await queue.add("plain", { number: number + 100 }));
const begin = Date.now();
const delayed = await queue.addBulk(range(50).map((number) => ({ name: "delayed", data: { number }, opts: { delay: 500 } })));
const flaky = await queue.addBulk(
  range(40).map((number) => ({ name: "flaky", data: { number }, opts: { attempts: 3, backoff: { type: "fixed", delay: 100 } } })),
);
const bad = await queue.addBulk(range(10).map((number) => ({ name: "bad", data: { number } })));
const jobs = [...first, ...second, ...delayed, ...flaky];
const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30_000)));
assert.deepEqual(results, jobs.map((job) => job.data.number * 2));
await until("the bad ones have failed", async () => (await queue.getFailedCount()) === 10);
await until("all events", () => completed.size === jobs.length && failed.size === 10);
for (const job of delayed) assert.ok((await queue.getJob(job.id)).processedOn >= begin + 490);
// Exactly once, but for those that were to be repeated.
for (const job of [...first, ...second, ...delayed, ...bad]) assert.equal(runs.get(job.id), 1, `${job.name} ${job.id}`);
for (const job of flaky) assert.equal(runs.get(job.id), 3);
assert.ok([...completed.values()].every((count) => count === 1));
assert.equal(await queue.getCompletedCount(), jobs.length);
assert.deepEqual(await queue.getJobCounts("wait", "active", "delayed"), { wait: 0, active: 0, delayed: 0 });

// Priorities, from a queue that nobody works on yet.
const ranked = new Queue("ranked", options);
for (const number of range(60)) await ranked.add("ranked", { number }, { priority: 1 + ((number * 7) % 3) });
const order = [];
const single = new Worker("ranked", async (job) => { order.push(job.opts.priority); }, options);
await until("60 in order", () => order.length === 60);
assert.deepEqual(order, [...order].sort((a, b) => a - b));

// Flows: a parent runs when its children are done. Its queue is another one, which has to live with theirs.
const families = oneQueue ? 0 : 15;
const parents = [];
if (families > 0) {
  const producer = new FlowProducer(options);
  const family = await Promise.all(range(families).map((number) => producer.add({
    name: "parent", queueName: "parents", data: { number },
    children: range(5).map((child) => ({ name: "child", queueName: "work", data: { number: child } })),
  })));
  const sums = new Map();
  parents.push(new Worker("parents", async (job) => {
    const values = Object.values(await job.getChildrenValues());
    sums.set(job.id, values.reduce((left, right) => left + right, 0));
  }, options));
  await until("all parents", () => sums.size === families);
  assert.ok(family.every((each) => sums.get(each.job.id) === 20));
}

// A scheduler, and a limit of jobs in a time.
const scheduled = new Queue("scheduled", options);
await scheduled.upsertJobScheduler("tick", { every: 200 }, { name: "tick" });
const ticks = [];
const clock = new Worker("scheduled", async () => { ticks.push(Date.now()); }, options);
await until("3 ticks", () => ticks.length >= 3, 10);
await scheduled.removeJobScheduler("tick");
const limited = new Queue("limited", options);
await limited.addBulk(range(20).map((number) => ({ name: "limited", data: { number } })));
const times = [];
const slow = new Worker("limited", async () => { times.push(Date.now()); }, { ...options, limiter: { max: 10, duration: 500 } });
await until("20 limited", () => times.length === 20, 10);
assert.ok(times[19] - times[0] >= 450, `20 in ${times[19] - times[0]} ms`);

await queue.pause();
await queue.add("late", { number: 1 });
await sleep(100);
assert.equal(await queue.getWaitingCount(), 1);
await queue.resume();
await until("the late one", async () => (await queue.getCompletedCount()) === jobs.length + families * 5 + 1);
await Promise.all([...workers, single, ...parents, clock, slow].map((worker) => worker.close()));
await queue.obliterate({ force: true });
passed(jobs.length + 80 + 10 + 60 + families * 6 + 3 + 20 + 1);
