"""Kills a Redis node in the middle of traffic, then adds one to another pool, and counts what that cost.

A pool of real redis-servers is started behind `ringfence dev`. Clients that know nothing of it work through it, with
the ordinary redis-py driver. In the first act (node_killed.py) one node is killed with `kill -9`, and brought back a
few seconds later. In the second (node_added.py) messages flow as OpenStack Zaqar's do, and a node is added. In the end
every message is accounted for, and the nodes are read one by one, behind the proxy's back, and compared.

The exit code is 0 only if every check of both acts holds, 1 if one does not, 130 after Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import node_added
import node_killed
from report import Report, Screen
from sidecar import Failure, Sidecar

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/ringfence"
ACTS = {"1": [node_killed], "2": [node_added], "both": [node_killed, node_added]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--act", choices=ACTS, default="both", help="a node is killed, or added (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="the sidecar's worker threads (default %(default)s)")
    parser.add_argument("--partitions", type=int, default=256, help="slices of the key space (default %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what the clients do (default: the time)")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the nodes' data and all logs")
    parser.add_argument("--binary", type=Path, default=BINARY, help=argparse.SUPPRESS)
    first = parser.add_argument_group("only in the first act")
    first.add_argument("--seconds", type=float, default=15, help="how long the traffic runs (default %(default)s)")
    first.add_argument("--nodes", type=int, default=3, help="redis-servers in the pool (default %(default)s)")
    first.add_argument("--replicas", type=int, default=3, help="copies of every key (default %(default)s)")
    first.add_argument("--rate", type=int, default=1000, help="messages per second, at most (default %(default)s)")
    first.add_argument("--down", type=float, default=4, help="seconds a killed node stays dead (default %(default)s)")
    first.add_argument("--kill-every", type=float, metavar="SECONDS", help="kill a node again and again, each in turn")
    return parser.parse_args()


def perform(act, options):
    """One act, with a pool of its own, from its start until nothing is left of it; the exit code."""
    # A termination must clean up as Ctrl-C does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    options, more = act.pool(options)
    directory = Path(tempfile.mkdtemp(prefix="ringfence-demo-")).resolve()
    sidecar = Sidecar(options, directory, *more)
    report = Report(Screen(), options.seed, act.CONCLUSION)
    code = 1
    try:
        act.run(options, sidecar, report)
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


def main():
    options = arguments()
    if not options.binary.exists():
        print(f"{options.binary} is missing: run `make build`, or start this with `make demo`.", file=sys.stderr)
        return 1
    worst = 0
    for act in ACTS[options.act]:
        print(f"\n{act.__doc__.splitlines()[0]}\n")
        worst = max(worst, perform(act, options))
        if worst == 130:
            break
    return worst


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    code = main()
    sys.stdout.flush()
    # A client thread that hangs in a call must not keep the process.
    os._exit(code)
