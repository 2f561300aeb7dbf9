"""Where the segments of striped queues are: what the admin port says of them, again and again."""

import json
from collections import Counter

from sidecar import Follower


class SegmentLog(Follower):
    """Follows /v1/queues, and keeps every segment as it was when it was first seen."""

    def __init__(self, sidecar, seconds):
        super().__init__(sidecar, seconds)
        # By queue and number: the time, and the segment.
        self.opened = {}

    def read(self):
        """The segments of every queue, as they are now."""
        answer = self.sidecar.get("/v1/queues")
        if not answer or answer[0] != 200:
            return {}
        queues = {queue["key"].split(".")[1]: queue["segments"] for queue in json.loads(answer[1])}
        for queue, segments in queues.items():
            for segment in segments:
                self.opened.setdefault((queue, segment["number"]), (self.seconds(), segment))
        return queues

    def opened_since(self, at_s):
        """Of all queues, those that were opened since then (some of them may be gone again)."""
        return [segment for seen_at_s, segment in list(self.opened.values()) if seen_at_s >= at_s]


def per_node(segments):
    """How many segments each node has a copy of."""
    return Counter(node for segment in segments for node in segment["nodes"])


def lines(segments):
    """One for each segment."""
    last = segments[-1]["number"] if segments else None
    for segment in segments:
        end = ", open" if segment["number"] == last else ""
        yield f"segment {segment['number']:>3}, from message {segment['base']:>5}: {' '.join(segment['nodes'])}{end}"


def identity(segment):
    return segment["number"], segment["partition"], segment["base"]
