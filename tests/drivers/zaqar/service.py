"""Zaqar's storage as a Zaqar service has it: its own Redis drivers for queues, messages and claims, and the pipeline before them."""

from oslo_config import cfg
from osprofiler import opts
from repairs import repair
from zaqar.common import cache as oslo_cache
from zaqar.conf import default, drivers, drivers_management_store_redis, drivers_message_store_redis
from zaqar.conf import notification, profiler, signed_url
from zaqar.storage import pipeline
from zaqar.storage.redis import driver

GROUPS = [drivers, notification, signed_url, profiler, drivers_management_store_redis, drivers_message_store_redis]

repair()


def storage(uri, attempts=10):
    """What the service's requests work with (`queue_controller`, `message_controller`, `claim_controller`) on the server at `uri`,
    and the connections below. `attempts`: how often Zaqar tries before it reports an error; 10 are its default."""
    conf = cfg.ConfigOpts()
    conf(args=[], project="zaqar", default_config_files=[])
    conf.register_opts(default.ALL_OPTS)
    opts.set_defaults(conf)
    for group in GROUPS:
        conf.register_opts(group.ALL_OPTS, group=group.GROUP_NAME)
    for group in [drivers_management_store_redis, drivers_message_store_redis]:
        conf.set_override("uri", uri, group=group.GROUP_NAME)
        conf.set_override("max_reconnect_attempts", attempts, group=group.GROUP_NAME)
    oslo_cache.register_config(conf)
    cache = oslo_cache.get_cache(conf)
    control = driver.ControlDriver(conf, cache)
    data = driver.DataDriver(conf, cache, control)
    return pipeline.DataDriver(conf, data, control), [control.connection, data.connection]
