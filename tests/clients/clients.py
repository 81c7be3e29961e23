"""Drives the simulator with `dt` and `dqlmagic`; a line a check on standard output."""

import json
import os
import sys
import time
import urllib.request

URL = os.environ["URL"]
failed = False


def check(client, name):
    """Runs a check: it returns what it saw, or fails by an exception."""

    def run(function):
        global failed
        try:
            result, seen = "ok", function()
        except Exception as error:  # Whatever a client throws is a failed check.
            result, seen, failed = "failed", f"{type(error).__name__}: {error}", True
        seen = " ".join(str(seen).split())
        print(result, client, name, seen[:160], sep="\t", flush=True)

    return run


def steer(method, path, body=None):
    """A call to the simulator's own endpoints."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/_simulator{path}", data, method=method)) as answer:
        return json.loads(answer.read() or "null")


def expect(condition, seen):
    if not condition:
        raise AssertionError(seen)
    return seen


# --- dt -----------------------------------------------------------------------------------------------------------------

from dynatrace import Dynatrace  # noqa: E402

DT = "dt 1.2.2"
tenant = Dynatrace(URL, os.environ["API_TOKEN"], too_many_requests_strategy="wait")


@check(DT, "pages of entities")
def _():
    names = [e.display_name for e in tenant.entities.list('type("PROCESS_GROUP_INSTANCE")', page_size=2)]
    return expect(len(names) == 6 and len(set(names)) == 6, f"{len(names)} processes in 3 pages")


@check(DT, "one entity with its relationships")
def _():
    service = list(tenant.entities.list('type("SERVICE"),entityName.equals("checkout")'))[0]
    entity = tenant.entities.get(service.entity_id)
    return expect(entity.display_name == "checkout", f"{entity.entity_id} {entity.display_name}")


@check(DT, "pages of metrics")
def _():
    keys = [m.metric_id for m in tenant.metrics.list(page_size=3)]
    return expect(len(keys) == 8 and len(set(keys)) == 8, f"{len(keys)} metrics in 3 pages")


@check(DT, "the descriptor of a chain")
def _():
    metric = tenant.metrics.get("builtin:service.response.time:splitBy():avg")
    return expect(metric.metric_id.endswith(":avg"), metric.metric_id)


@check(DT, "a query of metrics")
def _():
    selector = "builtin:service.response.time:percentile(95):names"
    found = list(tenant.metrics.query(selector, resolution="1m", time_from="now-30m", time_to="now-2m"))
    series = found[0].data
    sizes = {len(s.values) for s in series} | {len(s.timestamps) for s in series}
    good = len(series) == 2 and len(sizes) == 1 and all(v is not None for s in series for v in s.values)
    return expect(good, f"{len(series)} series of {sizes} points")


@check(DT, "429 is waited for by Retry-After")
def _():
    steer("DELETE", "/calls")
    fault = {"kind": "throttle", "header": "retry_after", "seconds": 2}
    steer("POST", "/faults", {"fault": fault, "path": "/api/v2/metrics/query", "calls": 1})
    begun = time.monotonic()
    list(tenant.metrics.query("builtin:host.cpu.usage", time_from="now-10m"))
    waited = time.monotonic() - begun
    statuses = [call["status"] for call in steer("GET", "/calls")]
    return expect(waited >= 2 and statuses == [429, 200], f"{statuses} after {waited:.1f} s")


@check(DT, "ingest of metrics")
def _():
    answer = tenant.metrics.ingest(['vouch.risk,service="checkout" gauge,0.2', "vouch.verdicts count,delta=1"])
    changed = answer["warnings"]["warningLines"][0]["warning"]
    return expect((answer["linesOk"], answer["linesInvalid"]) == (2, 0), changed)


@check(DT, "ingest of metrics, one line wrong: 400")
def _():
    try:
        tenant.metrics.ingest(["vouch.risk 1", "dt.reserved 1"])
    except Exception as error:
        return expect("<Response [400]>" in str(error) and '"linesOk":1' in str(error), "400, one line taken")
    raise AssertionError("it was accepted")


@check(DT, "ingest of an event, and finding it")
def _():
    answer = tenant.events_v2.ingest("CUSTOM_DEPLOYMENT", "Deploy", entity_selector='type("SERVICE")')
    results = [result["status"] for result in answer["eventIngestResults"]]
    found = list(tenant.events_v2.list(event_selector='eventType("CUSTOM_DEPLOYMENT")'))
    one = tenant.events_v2.get(found[0].event_id)
    return expect(results == ["OK", "OK"] and len(found) == 2 and one.title == "Deploy", f"{results}, {one.title}")


@check(DT, "problems")
def _():
    steer("POST", "/incident", {"on": "checkout", "at_ms": steer("GET", "/health")["now_ms"] - 600_000,
                                "effect": {"kind": "latency_step", "factor": 2}, "problem": {}})
    problems = list(tenant.problems.list(time_from="now-2h"))
    one = tenant.problems.get(problems[0].problem_id)
    return expect(len(problems) == 1 and one.title, f"{one.display_id} {one.title}")


@check(DT, "objectives, evaluated")
def _():
    listed = list(tenant.slos.list(page_size=1))
    one = tenant.slos.get(listed[0].id, time_from="now-1h", time_to="now", time_frame="GTF")
    return expect(len(listed) == 2 and 99 < one.evaluated_percentage < 100, f"{one.name} {one.evaluated_percentage:.3f}")


@check(DT, "the scopes of a token")
def _():
    token = tenant.tokens.lookup(os.environ["API_TOKEN"])
    return expect(token.id == "dt0c01.CLIENTS" and len(token.scopes) == 8, f"{token.id} {len(token.scopes)} scopes")


@check(DT, "a base address with /e/{id} and a trailing slash")
def _():
    managed = Dynatrace(f"{URL}/e/abc12345/", os.environ["API_TOKEN"])
    return expect(len(list(managed.entities.list('type("SERVICE")'))) == 2, "2 services")


@check(DT, "a wrong token: 401")
def _():
    try:
        list(Dynatrace(URL, "dt0c01.WRONG.TOKEN").metrics.list())
    except Exception as error:
        return expect("<Response [401]>" in str(error), "401")
    raise AssertionError("it was accepted")


# --- dqlmagic -----------------------------------------------------------------------------------------------------------

from dqlmagic import DQLmagic  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402

DQL = "dqlmagic 1.4.0"
QUERY = "timeseries cpu = avg(dt.host.cpu.usage), by:{dt.entity.host}, interval:1m"
os.environ.update({
    "grail_apiurl": f"{URL}/platform/storage/query/v1/", "dt_tenant": "abc12345",
    "oauth_dt_oauth_url": f"{URL}/sso/oauth2/token", "oauth_dt_oauth_clientid": "dt0s02.CLIENTS",
    "oauth_dt_oauth_clientsecret": os.environ["OAUTH_SECRET"],
    "oauth_dt_oauth_scope": "storage:buckets:read storage:metrics:read",
    "oauth_grail_apiurl": f"{URL}/platform/storage/query/v1/", "oauth_dt_tenant": "abc12345",
    "dt_platform_token": os.environ["PLATFORM_TOKEN"], "dql_default_query_timespan_minutes": "30",
})


def silently(function):
    """Its progress goes to standard error, where it is in nobody's way."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        return function()
    finally:
        sys.stdout = out


def logged_in(prefix):
    magic = DQLmagic(InteractiveShell.instance())
    return magic, magic.auth_grail(prefix)


@check(DQL, "a platform token, and a query that is answered at once")
def _():
    magic, said = logged_in("")
    records = magic.dql(QUERY)
    return expect(len(records) == 6 and 30 <= len(records[0]["cpu"]) <= 31, f"{said}; {len(records)} records")


@check(DQL, "an OAuth client, and a query that is polled")
def _():
    magic, said = logged_in("oauth")
    steer("DELETE", "/calls")
    steer("POST", "/faults", {"fault": {"kind": "query_state", "polls": 2}})
    records = silently(lambda: magic.dql(QUERY))
    steer("DELETE", "/faults")
    calls = [(call["path"].rsplit("/", 1)[1], call["status"]) for call in steer("GET", "/calls")]
    polls = [call for call in calls if call[0] == "query:poll"]
    return expect(len(records) == 6 and polls == [("query:poll", 200)] * 3 and ("query:execute", 202) in calls,
                  f"{said}; {len(polls)} polls")


@check(DQL, "a warning in the notifications")
def _():
    magic, _said = logged_in("")
    steer("POST", "/faults", {"fault": {"kind": "scan_limit"}})
    raw = json.loads(magic.dql_raw(QUERY))
    steer("DELETE", "/faults")
    return raw["result"]["metadata"]["grail"]["notifications"][0]["notificationType"]


@check(DQL, "a query that is wrong")
def _():
    magic, _said = logged_in("")
    records = magic.dql("timeseries avg(")
    return expect("(400)" in records[0]["ERROR"], records[0]["ERROR"])


sys.exit(1 if failed else 0)
