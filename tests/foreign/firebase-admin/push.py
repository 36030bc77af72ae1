"""Sends one good and one failing push to the simulated FCM with firebase-admin, which nobody here wrote.

    REVEILLE_FCM_URL=https://localhost:8443 push.py <sim folder> <good token> <dead token>

First over HTTP/1.1 (`send`), then over HTTP/2 (`send_each_async`). Exits 0 only if the SDK reports all of them as it should.
"""

import asyncio
import os
import sys

folder, good_token, dead_token = sys.argv[1:4]
# requests and httpx read these when they are imported or first used.
os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = os.path.join(folder, "ca.pem")

import firebase_admin  # noqa: E402
from firebase_admin import credentials, messaging  # noqa: E402

# The SDK has no option for it.
messaging._MessagingService.FCM_URL = os.environ["REVEILLE_FCM_URL"] + "/v1/projects/{0}/messages:send"
firebase_admin.initialize_app(credentials.Certificate(os.path.join(folder, "service-account.json")))


def trigger(token):
    return messaging.Message(
        token=token,
        data={"v": "1", "head": "42"},
        android=messaging.AndroidConfig(priority="normal", ttl=3600, collapse_key="sync"),
    )


def check(condition, what):
    if not condition:
        sys.exit(f"not as expected: {what}")


def over_http1():
    name = messaging.send(trigger(good_token))
    print("good:", name)
    check(name.startswith("projects/reveille-sim/messages/"), name)
    try:
        messaging.send(trigger(dead_token))
    except messaging.UnregisteredError as error:
        print("dead:", repr(error))
        check(error.http_response.status_code == 404, error.http_response.status_code)
    else:
        check(False, "the push to the dead token was accepted")


async def over_http2():
    batch = await messaging.send_each_async([trigger(good_token), trigger(dead_token)])
    good, dead = batch.responses
    print("good:", good.message_id, "dead:", repr(dead.exception))
    check(good.success, good.exception)
    check(isinstance(dead.exception, messaging.UnregisteredError), dead.exception)
    check(dead.exception.http_response.http_version == "HTTP/2", dead.exception.http_response.http_version)


over_http1()
asyncio.run(over_http2())
