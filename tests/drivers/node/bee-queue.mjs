// Bee-Queue: jobs, delays, retries, progress over pub/sub.

import assert from "node:assert/strict";
import Queue from "bee-queue";
import { connection, halfway, passed, range, until } from "./flow.mjs";

const options = { redis: connection, activateDelayedJobs: true };
const queue = new Queue("bee", { ...options, isWorker: false });
const worker = new Queue("bee", { ...options, sendEvents: true });
const runs = new Map();
worker.process(4, async (job) => {
  runs.set(job.id, (runs.get(job.id) ?? 0) + 1);
  if (job.data.flaky && runs.get(job.id) < 3) throw new Error("not yet");
  job.reportProgress(50);
  return job.data.number * 2;
});
await Promise.all([queue.ready(), worker.ready()]);
const results = new Map();
const progress = new Set();
queue.on("job succeeded", (id, result) => results.set(id, result));
queue.on("job progress", (id) => progress.add(id));
const jobs = [];
for (const number of range(200)) {
  if (number === 100) await halfway();
  jobs.push(await queue.createJob({ number }).save());
}
for (const number of range(30)) jobs.push(await queue.createJob({ number }).delayUntil(Date.now() + 300).save());
for (const number of range(30)) jobs.push(await queue.createJob({ number, flaky: true }).retries(3).save());
await until("all have run", async () => (await queue.checkHealth()).succeeded === jobs.length);
for (const job of jobs) assert.equal(runs.get(job.id), job.data.flaky ? 3 : 1);
// Events are published: at most once.
await until("most events", () => results.size >= jobs.length * 0.9 && progress.size >= jobs.length * 0.9, 5);
for (const job of jobs) if (results.has(job.id)) assert.equal(results.get(job.id), job.data.number * 2);
await Promise.all([queue.close(), worker.close()]);
passed(200 + 30 + 90);
