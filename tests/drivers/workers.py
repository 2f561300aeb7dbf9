"""Threads that stand for the processes of an application."""

import threading


def run_all(*functions, timeout_s=60):
    """Runs each in a thread of its own; raises what the first one raised; their results, in order."""
    results = [None] * len(functions)
    errors = []

    def run(index, function):
        try:
            results[index] = function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), f"not done after {timeout_s} s"
    return results
