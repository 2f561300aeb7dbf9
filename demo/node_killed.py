"""First act: a node is killed in the middle of traffic, and brought back.

Producers and consumers that know nothing of it work through the proxy. In the end every message is accounted for, and
the nodes are read one by one, behind the proxy's back, and compared.
"""

from agreement import compare_nodes
from sidecar import Watcher, start_pool, wait_for_nodes
from traffic import Traffic

CONCLUSION = "Killed and brought back under traffic; nothing acknowledged was lost, and no client saw an error."


def pool(options):
    """The pool's options, and what else `ringfence dev` is told."""
    return options, []


def kill_and_bring_back(sidecar, watcher, screen, name, down_s):
    """One failure, from `kill -9` until the node has every write again."""
    pid = sidecar.kill(name)
    screen.event(f"{name} (pid {pid}) killed with kill -9")
    screen.wait(down_s)
    command = sidecar.bring_back(name)
    screen.event(f"{name} started again: {command}")
    waited_s = screen.wait_until(lambda: watcher.in_sync_since_kill(name), 60)
    if waited_s is None:
        screen.event(f"{name} is not in sync again after 60 s")
    else:
        screen.event(f"{name} is in sync again, {waited_s * 1000:.0f} ms after its start")


def run_traffic(options, sidecar, watcher, traffic, screen):
    """Traffic for the time asked for, longer if a node is not yet back; then the queues run empty."""
    names = [node["name"] for node in watcher.nodes]
    end = screen.seconds() + options.seconds
    screen.event(f"traffic starts: {traffic.description()}")
    traffic.start()
    screen.wait(options.seconds / 3 if options.kill_every is None else options.kill_every)
    if options.kill_every is None:
        kill_and_bring_back(sidecar, watcher, screen, names[1 % len(names)], options.down)
    else:
        turn = 0
        while screen.seconds() < end:
            kill_and_bring_back(sidecar, watcher, screen, names[turn % len(names)], options.down)
            turn += 1
            screen.wait(options.kill_every)
    # Some traffic must see the node that came back.
    screen.wait(max(end - screen.seconds(), 1))

    traffic.stop_producing()
    screen.event("producers have stopped; consumers empty the queues")
    if screen.wait_until(traffic.drained, 60) is None:
        screen.event("the queues are not empty after 60 s")
    traffic.stop()


def run(options, sidecar, report):
    screen = report.screen
    start_pool(sidecar, screen)
    with Watcher(sidecar, screen.seconds) as watcher:
        wait_for_nodes(options, sidecar, watcher, screen)
        with Traffic(sidecar.port, options.rate, options.seed, screen.seconds) as traffic:
            screen.follow(traffic, watcher)
            run_traffic(options, sidecar, watcher, traffic, screen)
            screen.follow(None, None)
            # Values that live for 0.2 s are gone everywhere before the nodes are read one after the other.
            screen.wait(0.5)
            # The slowest copy may still have to write what the others have acknowledged.
            screen.wait_until(watcher.settled, 30)
            traffic.read_counters()
        report.add_traffic(traffic)
        report.add_nodes(watcher, sidecar.killed)
        report.add_agreement(compare_nodes(watcher.nodes, options.replicas))
