"""What the other teams see: announces deployments on the topic, reads topics, and checks that NATS refuses the rest.

topics.py announce SERVICE ENVIRONMENT VERSION     as user deployer
topics.py read TOPIC FIELD=VALUE...                as user subscriber: waits for a message with these fields, prints it
topics.py refused                                  every user tries what it may not do

NATS_URL is the server, SECRETS the folder that deploy/make-secrets has filled.
"""

import asyncio
import json
import os
import pathlib
import sys

import nats

STREAMS = {"deployment": "VOUCH_DEPLOYMENT", "verdict": "VOUCH_VERDICT", "action": "VOUCH_ACTION"}
PATIENCE = 120

# Who tries what. A publish must be refused by the server; a request must not be answered.
REFUSED_PUBLISHES = [
    ("notifier", "vouch.v1.verdict.demo.payment.deployment.forged"),
    ("notifier", "vouch.v1.deployment.demo.payment"),
    ("notifier", "$KV.vouch_verifications.forged"),
    ("notifier", "$KV.vouch_deployments.forged"),
    ("collector", "vouch.v1.verdict.demo.payment.deployment.forged"),
    ("collector", "vouch.v1.deployment.demo.payment"),
    ("collector", "vouch.v1.action.demo.payment"),
    ("collector", "$KV.vouch_ledger.forged"),
    ("collector", "$KV.vouch_leases.analyzer.owner.1"),
    ("analyzer", "vouch.v1.action.demo.payment"),
    ("analyzer", "vouch.v1.series.demo.payment"),
    ("analyzer", "$KV.vouch_ledger.forged"),
    ("analyzer", "$KV.vouch_catalogue.forged"),
    ("analyzer", "$JS.ACK.VOUCH_VERDICT.notifier-verdicts.1.1.1.1.0"),
    ("deployer", "vouch.v1.verdict.demo.payment.deployment.forged"),
    ("deployer", "vouch.v1.series.demo.payment"),
    ("deployer", "$JS.API.STREAM.INFO.VOUCH_VERDICT"),
    ("subscriber", "vouch.v1.verdict.demo.payment.deployment.forged"),
    ("subscriber", "vouch.v1.deployment.demo.payment"),
    ("subscriber", "_INBOX.forged"),
    ("subscriber", "$JS.ACK.VOUCH_VERDICT.notifier-verdicts.1.1.1.1.0"),
    ("subscriber", "$JS.API.CONSUMER.CREATE.VOUCH_VERDICT.notifier-verdicts"),
    ("subscriber", "$JS.API.CONSUMER.CREATE.VOUCH_VERDICT.notifier-verdicts.vouch.v1.verdict.none"),
    ("subscriber", "$JS.API.CONSUMER.DURABLE.CREATE.VOUCH_VERDICT.notifier-verdicts"),
    ("subscriber", "$JS.API.CONSUMER.CREATE.VOUCH_VERDICT"),
    ("subscriber", "$JS.API.CONSUMER.MSG.NEXT.VOUCH_VERDICT.notifier-verdicts"),
    ("subscriber", "$JS.API.CONSUMER.DELETE.VOUCH_VERDICT.notifier-verdicts"),
    ("subscriber", "$JS.API.CONSUMER.DELETE.VOUCH_DEPLOYMENT.analyzer-deployments"),
    ("subscriber", "$JS.API.CONSUMER.CREATE.VOUCH_SERIES.mine"),
    ("subscriber", "$JS.API.CONSUMER.CREATE.KV_vouch_ledger.mine"),
    ("setup", "vouch.v1.verdict.demo.payment.deployment.forged"),
    ("setup", "$KV.vouch_ledger.forged"),
] + [
    (user, f"$JS.API.STREAM.{verb}.{stream}")
    for user in ("collector", "analyzer", "notifier", "deployer", "subscriber")
    for verb, stream in (("DELETE", "VOUCH_VERDICT"), ("PURGE", "KV_vouch_ledger"), ("CREATE", "FORGED"), ("UPDATE", "VOUCH_VERDICT"))
]
REFUSED_SUBSCRIPTIONS = [
    (user, subject)
    for user in ("collector", "analyzer", "notifier", "deployer", "subscriber")
    for subject in ("vouch.v1.verdict.>", "$KV.>", ">")
] + [("subscriber", "_INBOX_notifier.>"), ("collector", "_INBOX_analyzer.>"), ("notifier", "_INBOX.>")]


def secret(name):
    return (pathlib.Path(os.environ["SECRETS"]) / name).read_text().strip()


async def connect(user, errors=None):
    async def note(error):
        if errors is not None:
            errors.append(str(error))

    return await nats.connect(
        os.environ["NATS_URL"],
        user=user,
        password=secret(f"nats_{user}"),
        inbox_prefix=f"_INBOX_{user}",
        error_cb=note,
        connect_timeout=5,
        max_reconnect_attempts=2,
    )


async def announce(service, environment, version):
    """Announces that a version gets traffic, as a pipeline would."""
    client = await connect("deployer")
    deployment = {
        "service": service,
        "environment": environment,
        "version": version,
        "phase": "DEPLOYMENT_PHASE_TRAFFIC",
        "verification": {"duration": "600s"},
        "source": "tests/compose",
    }
    stored = await client.jetstream().publish(
        f"vouch.v1.deployment.{environment}.{service}",
        json.dumps(deployment).encode(),
        headers={"content-type": "application/json"},
    )
    print(f"{stored.stream} {stored.seq}")
    await client.close()


async def read(topic, *wanted):
    """Reads from the stream of a topic by a durable consumer of its own, until a message has the fields."""
    wanted = dict(pair.split("=", 1) for pair in wanted)
    client = await connect("subscriber")
    jetstream = client.jetstream()
    stream, name = STREAMS[topic.split(".")[2]], f"team-{os.getpid()}"
    subscription = await jetstream.pull_subscribe(topic, durable=name, stream=stream)
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    try:
        while loop.time() < until:
            try:
                messages = await subscription.fetch(10, timeout=2)
            except asyncio.TimeoutError:  # nothing there yet; its own kinds are among these
                continue
            for message in messages:
                await message.ack_sync()
                body = json.loads(message.data)
                if all(str(body.get(field)) == value for field, value in wanted.items()):
                    headers = {k: v for k, v in (message.headers or {}).items() if k.startswith(("ce-", "content"))}
                    print(json.dumps({"subject": message.subject, "headers": headers, "data": body}))
                    return
        sys.exit(f"no message on {topic} with {wanted} in {PATIENCE} s")
    finally:
        await jetstream.delete_consumer(stream, name)
        await client.close()


async def is_refused(user, subject, subscribes):
    """Whether the server says that the user may not."""
    errors = []
    client = await connect(user, errors)
    if subscribes:
        await client.subscribe(subject)
    else:
        await client.publish(subject, b"{}")
    await client.flush()
    for _ in range(20):
        if any("permissions violation" in error.lower() for error in errors):
            break
        await asyncio.sleep(0.05)
    await client.close()
    return any("permissions violation" in error.lower() for error in errors)


async def refused():
    """Tries everything that must be refused, and says what was not."""
    admin = await connect("admin")
    before = (await admin.jetstream().stream_info("VOUCH_VERDICT")).state.messages
    tries = [(u, s, False) for u, s in REFUSED_PUBLISHES] + [(u, s, True) for u, s in REFUSED_SUBSCRIPTIONS]
    granted = [f"{user}: {subject}" for user, subject, sub in tries if not await is_refused(user, subject, sub)]
    if await named_otherwise():
        granted.append("subscriber: notifier-verdicts under another name")
    for user, password in (("notifier", "wrong"), ("nobody", "x"), (None, None)):
        try:
            client = await nats.connect(
                os.environ["NATS_URL"], user=user, password=password, allow_reconnect=False, error_cb=ignore
            )
            await client.close()
            granted.append(f"{user or 'anonymous'}: the connection")
        except Exception as error:  # every way of being refused is right
            if "authorization" not in str(error).lower():
                granted.append(f"{user or 'anonymous'}: refused for another reason ({error!r})")
    after = (await admin.jetstream().stream_info("VOUCH_VERDICT")).state.messages
    await admin.close()
    if after != before:
        granted.append(f"VOUCH_VERDICT has {after - before} messages more")
    if granted:
        sys.exit("not refused:\n  " + "\n  ".join(granted))
    print(f"{len(tries) + 4} refused")


async def ignore(_error):
    pass


async def named_otherwise():
    """Whether a consumer of Vouch can be changed under a subject that names another."""
    client = await connect("subscriber")
    config = {"name": "notifier-verdicts", "durable_name": "notifier-verdicts", "ack_policy": "none"}
    request = json.dumps({"stream_name": "VOUCH_VERDICT", "config": config}).encode()
    answer = await client.request("$JS.API.CONSUMER.CREATE.VOUCH_VERDICT.mine", request, timeout=5)
    await client.close()
    return "error" not in json.loads(answer.data)


if __name__ == "__main__":
    commands = {"announce": announce, "read": read, "refused": refused}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    asyncio.run(commands[sys.argv[1]](*sys.argv[2:]))
