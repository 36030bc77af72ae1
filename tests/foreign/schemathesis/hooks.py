"""Who Schemathesis is on each route. The keys come from the test that runs it, in the environment.

Devices take turns, for each may poll only so often. And every connection comes from another address of this machine, for an address may
fail to authenticate only so often, and it tries.
"""

import itertools
import os

import schemathesis
import urllib3.util.connection

connect = urllib3.util.connection.create_connection
ADDRESSES = itertools.cycle(f"127.1.{i}.{j}" for i in range(256) for j in range(1, 255))


def connect_from_another(address, timeout=None, source_address=None, socket_options=None):
    return connect(address, timeout, (next(ADDRESSES), 0), socket_options)


urllib3.util.connection.create_connection = connect_from_another

OPERATOR_KEY = os.environ["REVEILLE_OPERATOR_KEY"]
APP_KEY = os.environ["REVEILLE_APP_KEY"]
DEVICE_TOKENS = itertools.cycle(os.environ["REVEILLE_DEVICE_TOKENS"].split(","))


def schemes(operation):
    return {name for requirement in operation.definition.raw.get("security", []) for name in requirement}


class Key:
    """The key of one scheme; a fresh one for each request."""

    def get(self, case, ctx):
        needed = schemes(case.operation)
        if "deviceToken" in needed:
            return next(DEVICE_TOKENS)
        if "appKey" in needed:
            return APP_KEY
        return OPERATOR_KEY if needed else None

    def set(self, case, data, ctx):
        if data:
            case.headers["Authorization"] = f"Bearer {data}"


schemathesis.auth(refresh_interval=None)(Key)
