"""Kills a Redis node in the middle of traffic, and counts what that cost.

A pool of real redis-servers is started behind `ringfence dev`. Producers and consumers that know nothing of it work
through it, with the ordinary redis-py driver. One node is killed with `kill -9`, and brought back a few seconds later.
In the end every message is accounted for, and the nodes are read one by one, behind the proxy's back, and compared.

The exit code is 0 only if every check holds, 1 if one does not, 130 after Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from agreement import compare_nodes
from report import Report, Screen
from sidecar import Failure, Sidecar, Watcher
from traffic import Traffic

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=15, help="how long the traffic runs (default %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="redis-servers in the pool (default %(default)s)")
    parser.add_argument("--replicas", type=int, default=3, help="copies of every key (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="the sidecar's worker threads (default %(default)s)")
    parser.add_argument("--partitions", type=int, default=256, help="slices of the key space (default %(default)s)")
    parser.add_argument("--rate", type=int, default=1000, help="messages per second, at most (default %(default)s)")
    parser.add_argument("--down", type=float, default=4, help="seconds a killed node stays dead (default %(default)s)")
    parser.add_argument("--kill-every", type=float, metavar="SECONDS", help="kill a node again and again, each in turn")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what the clients do (default: the time)")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the nodes' data and all logs")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/ringfence", help=argparse.SUPPRESS)
    return parser.parse_args()


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
    sidecar.start()
    screen.guard = sidecar.alive
    if screen.wait_until(sidecar.ready, 60) is None:
        raise Failure("the sidecar is not ready after 60 s")
    with Watcher(sidecar, screen.seconds) as watcher:
        if screen.wait_until(watcher.all_in_sync, 60) is None:
            raise Failure("not every node is in sync 60 s after the start")
        listening = f"{options.nodes} Redis nodes behind one address, 127.0.0.1:{sidecar.port}"
        screen.event(f"{listening}; every key on {options.replicas} of them")

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


def main():
    options = arguments()
    if not options.binary.exists():
        print(f"{options.binary} is missing: run `make build`, or start this with `make demo`.", file=sys.stderr)
        return 1
    # A termination must clean up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    directory = Path(tempfile.mkdtemp(prefix="ringfence-demo-")).resolve()
    sidecar = Sidecar(options, directory)
    report = Report(Screen(), options.seed)
    code = 1
    try:
        run(options, sidecar, report)
        code = None
    except KeyboardInterrupt:
        report.screen.event("interrupted: cleaning up")
        code = 130
    except Failure as failure:
        report.screen.event(f"failed: {failure}")
    finally:
        # From here on nothing waits long, and nothing may be left behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report.screen.close()
        report.add_end(sidecar.stop())
        if code is None:
            code = 0 if report.print() else 1
        if code == 1 or options.keep:
            print(f"Data and logs of the nodes and the sidecar are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    code = main()
    sys.stdout.flush()
    # A client thread that hangs in a call must not keep the process.
    os._exit(code)
