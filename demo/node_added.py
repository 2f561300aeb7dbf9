"""Second act: a node is added in the middle of a message flow by OpenStack Zaqar's own driver.

The queues are striped: each is cut into segments on different nodes. While messages are posted, claimed, deleted, made
dead letters, and read page by page, a fifth node joins the four. In the end every message is accounted for, no walk
through the pages has missed or repeated one, and the new node has its part of the segments.
"""

import argparse

import segments
from agreement import compare_nodes
from flow import ARCHIVE, ARCHIVED_AT_FIRST, Flow
from segments import SegmentLog
from sidecar import Watcher, start_pool, wait_for_nodes

CONCLUSION = "A node was added under traffic; every message was delivered once, and no page missed or repeated one."
SECONDS, ADDED_AFTER_S = 10, 3
NODES, REPLICAS, SEGMENT_LEN = 4, 3, 200
NEW = "node5"


def pool(options):
    """The pool's options, and what else `ringfence dev` is told."""
    own = {"nodes": NODES, "replicas": REPLICAS}
    return argparse.Namespace(**vars(options) | own), ["--profile", "zaqar", "--segment-len", SEGMENT_LEN]


def show(screen, title, listed):
    screen.event(title)
    for line in segments.lines(listed):
        print(f"{'':9}    {line}")


def add_node(sidecar, watcher, screen):
    """From the start of an empty server until it has its share."""
    address = sidecar.start_node(NEW)
    command = sidecar.operate("nodes", "add", address, "--name", NEW)
    added_at_s = screen.seconds()
    screen.event(f"{NEW} added: {command}")
    waited_s = screen.wait_until(lambda: watcher.has_its_share(NEW) and sidecar.moves_settled(), 60)
    if waited_s is None:
        screen.event(f"{NEW} has not got its share after 60 s")
    else:
        screen.event(f"{NEW} has its share of the partitions, {waited_s * 1000:.0f} ms after it was added")
    return added_at_s


def run_flow(sidecar, watcher, flow, log, screen):
    """The archive's segments before, those at the end, and when the node was added."""
    flow.prepare()
    end = screen.seconds() + SECONDS
    screen.event(f"traffic starts: {flow.description()}")
    screen.follow(flow, watcher)
    flow.start()
    screen.wait(ADDED_AFTER_S)
    before = log.read().get(ARCHIVE, [])
    show(screen, f"segments of {ARCHIVE} before:", before)
    added_at_s = add_node(sidecar, watcher, screen)
    # Some traffic must see the node that came.
    screen.wait(max(end - screen.seconds(), 1))

    flow.stop_producing()
    screen.event("posters have stopped; workers empty the queue")
    if screen.wait_until(flow.drained, 60) is None:
        screen.event("the queue is not empty after 60 s")
    flow.stop()
    flow.read_what_is_left()
    after = log.read().get(ARCHIVE, [])
    show(screen, f"segments of {ARCHIVE} after:", after)
    return before, after, added_at_s


def run(options, sidecar, report):
    screen = report.screen
    start_pool(sidecar, screen)
    with Watcher(sidecar, screen.seconds) as watcher:
        wait_for_nodes(options, sidecar, watcher, screen)
        with SegmentLog(sidecar, screen.seconds) as log, Flow(sidecar.port, options.seed, screen.seconds) as flow:
            before, after, added_at_s = run_flow(sidecar, watcher, flow, log, screen)
            screen.follow(None, None)
            # The slowest copy may still have to write what the others have acknowledged.
            screen.wait_until(lambda: watcher.settled() and sidecar.moves_settled(), 30)
        add_flow(report, flow)
        add_nodes(report, watcher)
        add_segments(report, before, after, log.opened_since(added_at_s))
        report.add_agreement(compare_nodes(watcher.nodes, REPLICAS))


def add_flow(report, flow):
    ledger, spoilt = flow.ledger, flow.ledger.spoilt()
    posted, deleted, lost, changed = len(ledger.posted), len(ledger.deleted), ledger.lost(), ledger.changed()
    dead_holds = ledger.dead.keys() == spoilt != set()
    report.check("jobs posted and acknowledged", f"{posted:,}", posted > 0)
    report.check("jobs claimed and deleted", f"{deleted:,}", deleted == posted - len(spoilt))
    report.check("jobs in the dead letter queue", f"{ledger.dead.total():,} of {len(spoilt):,} spoilt", dead_holds)
    report.check("lost: neither deleted nor a dead letter", f"{lost:,}", lost == 0)
    report.check("duplicated: in two hands, or done twice", f"{ledger.duplicated():,}", ledger.duplicated() == 0)
    report.check("changed or invented", f"{changed:,}", changed == 0)
    report.check("left in the jobs' queues", f"{flow.jobs_left}", flow.jobs_left == 0)
    # One is made in the end; the others are those under traffic.
    walks = f"{ledger.walks:,}, {ledger.pages:,} pages"
    report.check("walks through the archive", walks, ledger.walks > 1 and len(ledger.staying) > ARCHIVED_AT_FIRST / 2)
    report.check("there throughout, and missed by a walk", f"{ledger.missed:,}", ledger.missed == 0)
    report.check("seen twice by a walk", f"{ledger.repeated:,}", ledger.repeated == 0)
    report.check("out of order in a walk", f"{ledger.reordered:,}", ledger.reordered == 0)
    report.add_account(ledger)


def add_nodes(report, watcher):
    """Whether all are as they should be. While partitions are handed over they need not be."""
    in_sync = sum(watcher.is_in_sync(node) for node in watcher.nodes)
    holds = watcher.has_its_share(NEW) and in_sync == NODES + 1
    report.check("nodes in sync at the end", f"{in_sync} of {NODES + 1}", holds)


def add_segments(report, before, after, opened):
    """How the archive's segments were spread, and what became of old and new ones."""
    counts = segments.per_node(before), segments.per_node(after)
    report.measure(f"segments of {ARCHIVE}", f"{len(before):>3} → {len(after):>3}")
    for node in sorted(counts[0] | counts[1]):
        report.measure(f"    {node}", f"{counts[0][node]:>3} → {counts[1][node]:>3}")
    now = {segments.identity(segment): set(segment["nodes"]) for segment in after}
    kept = [segment for segment in before if segments.identity(segment) in now]
    came = [node for segment in kept for node in now[segments.identity(segment)] - set(segment["nodes"])]
    to_new = came.count(NEW)
    stayed = f"{len(kept)} of {len(before)}"
    report.check("old segments in the partition where they were", stayed, len(kept) == len(before) > 1)
    report.measure("    copies that went with their partitions", f"{to_new} to {NEW}, {len(came) - to_new} elsewhere")
    on_new = sum(NEW in segment["nodes"] for segment in opened)
    report.check(f"segments opened since, on {NEW}", f"{on_new} of {len(opened)}", on_new > 0)
