"""make run: the demo starts, shows its dashboards with moving numbers, and leaves nothing behind."""

import os
import re
import subprocess
import sys

from tests.support import pg
from tests.support.harness import only


@only(15)  # it brings a server of its own
def test_demo(_world):
    env = dict(os.environ, DEMO_SECONDS="14")
    done = subprocess.run([sys.executable, os.path.join(pg.ROOT, "bench", "demo", "demo.py")], env=env, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0 or not done.stdout.endswith("stopped.\n"):
        raise pg.Failure(f"the demo ended with {done.returncode}:\n{done.stdout[-4000:]}")
    frames = done.stdout.split("try it:")[1:]
    if len(frames) < 4:
        raise pg.Failure(f"{len(frames)} frames:\n{done.stdout[-4000:]}")
    for name in ("live_counter", "by_region", "daily_totals", "order_monitor", "customer_360", "tier_totals"):
        if name not in frames[-1]:
            raise pg.Failure(f"{name} is not shown:\n{frames[-1]}")
    orders = [int(re.search(r"orders (\d+)", f).group(1)) for f in frames]
    if len(set(orders)) < 3:
        raise pg.Failure(f"no orders flow: {orders}")

    if not re.search(r"^live_counter +IMMEDIATE .*in step", frames[-1], re.M):
        raise pg.Failure(f"live_counter is behind:\n{frames[-1]}")
    refreshes = re.search(r"^by_region +DIFFERENTIAL +5s +[\d.]+ s +[\d.]+ ms +\d+ +(\d+)", frames[-1], re.M)
    if not refreshes or int(refreshes.group(1)) < 2:
        raise pg.Failure(f"by_region was not refreshed on its schedule:\n{frames[-1]}")
