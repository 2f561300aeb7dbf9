// One flow in a process of its own: where its server is, and a word with the one who started it.

import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const connection = { host: "127.0.0.1", port: Number(process.argv[2]) };

/** What the names of keys begin with: the driver's own, or a hash tag. */
export const prefix = process.env.PREFIX;

/** Whether only keys of one queue live together. */
export const oneQueue = Boolean(process.env.ONE_QUEUE);

/** Here a node dies, where nodes die. */
export async function halfway() {
  console.log("halfway");
  await lines.next();
}

/** Everything held. */
export function passed(jobs) {
  console.log(`passed ${jobs}`);
  process.exit(0);
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits for a condition that may be asked for over the network. */
export async function until(what, condition, timeoutSeconds = 30) {
  const end = Date.now() + timeoutSeconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${timeoutSeconds} s in vain: ${what}`);
    await sleep(10);
  }
}

export const range = (count) => Array.from({ length: count }, (_, index) => index);
