"""What a person sees: a line that follows the traffic, and in the end a table with what it all cost."""

import os
import shutil
import sys
import time


class Screen:
    """Events, each with its time, and below them a line that follows the traffic (without a terminal: one a second)."""

    INTERVAL_S = 0.1

    def __init__(self):
        self.began = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.traffic = self.watcher = None
        self.drawn_at = 0.0
        # Asked while something is waited for; raises if waiting has no sense any more.
        self.guard = None

    def seconds(self):
        """Since the demo started."""
        return time.monotonic() - self.began

    def follow(self, traffic, watcher):
        self.clear()
        self.traffic, self.watcher = traffic, watcher

    def event(self, text):
        self.clear()
        print(f"{self.seconds():6.2f} s  {text}")

    def wait(self, seconds):
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition, timeout_s):
        """How long it took, or None if it did not happen."""
        began = self.seconds()
        while not condition():
            if self.seconds() - began >= timeout_s:
                return None
            if self.guard:
                self.guard()
            self.draw()
            time.sleep(0.02)
        return self.seconds() - began

    def draw(self):
        interval_s = self.INTERVAL_S if self.terminal else 1
        if self.traffic is None or self.seconds() - self.drawn_at < interval_s:
            return
        self.drawn_at = self.seconds()
        ledger = self.traffic.ledger
        parts = [
            f"acknowledged {ledger.acknowledged_count:,}  delivered {ledger.delivered_count:,}",
            f"errors {ledger.error_count}  longest pause {ledger.longest_pause[0] * 1000:.0f} ms",
            self.nodes_line(),
        ]
        line = f"{self.seconds():6.2f} s  " + " | ".join(parts)
        if self.terminal:
            width = shutil.get_terminal_size().columns
            print(f"\r\033[K{line[: width - 1]}", end="", flush=True)
        else:
            print(line)

    def nodes_line(self):
        """Only what is not as it should be."""
        nodes = self.watcher.nodes
        states = [f"{node['name']} {node['state']}" for node in nodes if node["state"] != "in_sync"]
        return ", ".join(states) or f"{len(nodes)} nodes in sync"

    def clear(self):
        if self.terminal:
            print("\r\033[K", end="", flush=True)

    def close(self):
        self.follow(None, None)


class Report:
    """Rows of the table; a row is a measurement, or a check that holds or does not."""

    def __init__(self, screen, seed, conclusion):
        """`conclusion` is what is said in the end if every check holds."""
        self.screen = screen
        self.seed = seed
        self.conclusion = conclusion
        self.rows = []
        self.details = []

    def measure(self, label, value):
        self.rows.append((label, value, None))

    def check(self, label, value, holds, details=()):
        self.rows.append((label, value, bool(holds)))
        self.details.extend(details)

    def add_traffic(self, traffic):
        ledger = traffic.ledger
        lost = ledger.lost()
        wrong = traffic.wrong_counters()
        counters = len(traffic.counter_values)
        acknowledged, delivered = ledger.acknowledged_count, ledger.delivered_count
        self.check("messages acknowledged to producers", f"{acknowledged:,}", acknowledged > 0)
        self.check("messages delivered to consumers", f"{delivered:,}", delivered > 0)
        self.check("lost: acknowledged, never delivered", f"{lost:,}", lost == 0)
        self.check("duplicated: delivered twice", f"{ledger.duplicated:,}", ledger.duplicated == 0)
        self.check("out of order", f"{ledger.reordered:,}", ledger.reordered == 0)
        self.check("invented: delivered, never sent", f"{ledger.invented:,}", ledger.invented == 0)
        self.check("counters that stand where they should", f"{counters - len(wrong)} of {counters}", not wrong, wrong)
        self.add_account(ledger)

    def add_account(self, account):
        duration_s, operation, at_s = account.longest_pause
        self.check("errors that any client saw", f"{account.error_count:,}", account.error_count == 0, account.errors)
        self.measure("longest pause that any client saw", f"{duration_s * 1000:.0f} ms ({operation}, at {at_s:.2f} s)")

    def add_nodes(self, watcher, killed):
        for name, changes in watcher.changes.items():
            times = killed.count(name)
            states = [state for _, state, _ in changes]
            fell_out = states.count("in_sync") - 1
            # A node that nobody killed has no reason to be anything but in sync.
            holds = states[-1] == "in_sync" and (fell_out >= times if times else fell_out == 0)
            if times == 0:
                value = "in sync all the time" if holds else " → ".join(states[-8:])
                self.check(f"{name}, never killed", value, holds)
                continue
            value = "in sync at the end" if states[-1] == "in_sync" else f"{states[-1]} at the end"
            self.check(f"{name}, killed {'once' if times == 1 else f'{times} times'}", value, holds)
            for at_s, state, reason in changes[-8:]:
                self.measure(f"    {at_s:6.2f} s  {state}", reason)

    def add_agreement(self, agreement):
        types = ", ".join(f"{count} {kind}" for kind, count in agreement.types.most_common())
        value = f"{agreement.keys - agreement.fault_count} of {agreement.keys}"
        holds = agreement.fault_count == 0 and agreement.keys > 0
        self.check("keys that are the same on all their nodes", value, holds, agreement.faults)
        self.measure(f"    {types}", f"{agreement.with_ttl} of them with a time to live")

    def add_end(self, complaints):
        self.check("processes left behind", "0" if not complaints else "see below", not complaints, complaints)

    def print(self):
        """The table; whether every check holds."""
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        marks = {True: "ok", False: "FAILED", None: ""}
        colours = {True: "\033[32m", False: "\033[1;31m", None: ""}
        left = max(len(label) for label, _, _ in self.rows)
        right = max(len(value) for _, value, _ in self.rows)
        print()
        for label, value, holds in self.rows:
            mark = f"{colours[holds]}{marks[holds]}\033[0m" if colour and holds is not None else marks[holds]
            print(f"  {label:<{left}}  {value:<{right}}  {mark}".rstrip())
        print()
        for detail in self.details:
            print(f"  ! {detail}")
        failed = sum(holds is False for _, _, holds in self.rows)
        if failed:
            print(f"{failed} of the checks do not hold (seed {self.seed}).")
        else:
            print(self.conclusion)
        return failed == 0
