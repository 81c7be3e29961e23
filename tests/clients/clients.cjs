// Drives the simulator with the clients of the Dynatrace SDK; a line a check on standard output.

const { PlatformHttpClient, _OAuthHttpClient } = require("@dynatrace-sdk/http-client");
const classic = require("@dynatrace-sdk/client-classic-environment-v2");
const { QueryAssistanceClient, QueryExecutionClient } = require("@dynatrace-sdk/client-query");

const { URL: base, PLATFORM_TOKEN, OAUTH_SECRET } = process.env;
const CLASSIC = "client-classic-environment-v2 9.0.1";
const GRAIL = "client-query 1.23.1";
const JSON_TYPE = "application/json; charset=utf-8";
const QUERY = "timeseries p95 = percentile(dt.service.request.response_time, 95), by:{dt.entity.service}, interval:1m";

const bearer = (token) =>
  new PlatformHttpClient({ baseUrl: base, defaultHeaders: { Authorization: `Bearer ${token}` } });
const http = bearer(PLATFORM_TOKEN);
let failed = false;

async function check(client, name, run) {
  let line;
  try {
    line = ["ok", client, name, await run()];
  } catch (error) {
    failed = true;
    line = ["failed", client, name, `${error.name}: ${error.message}`];
  }
  console.log(line.map((part) => String(part).replace(/\s+/g, " ").slice(0, 160)).join("\t"));
}

function expect(condition, seen) {
  if (!condition) throw new Error(`unexpected: ${seen}`);
  return seen;
}

/** A call that must be refused; gives what was thrown. */
async function refused(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("it was not refused");
}

async function steer(method, path, body) {
  const answer = await fetch(`${base}/_simulator${path}`, { method, body: body && JSON.stringify(body) });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

async function classicChecks() {
  const metrics = new classic.MetricsClient(http);
  const entities = new classic.MonitoredEntitiesClient(http);
  const events = new classic.EventsClient(http);

  await check(CLASSIC, "pages of entities", async () => {
    const names = [];
    let page = await entities.getEntities({ entitySelector: 'type("PROCESS_GROUP_INSTANCE")', pageSize: 4 });
    names.push(...page.entities.map((e) => e.displayName));
    while (page.nextPageKey) {
      page = await entities.getEntities({ nextPageKey: page.nextPageKey });
      names.push(...page.entities.map((e) => e.displayName));
    }
    return expect(new Set(names).size === 6, `${names.length} processes in 2 pages`);
  });
  await check(CLASSIC, "pages of metrics", async () => {
    let page = await metrics.allMetrics({ pageSize: 5, acceptType: JSON_TYPE });
    const keys = page.metrics.map((m) => m.metricId);
    page = await metrics.allMetrics({ nextPageKey: page.nextPageKey, acceptType: JSON_TYPE });
    keys.push(...page.metrics.map((m) => m.metricId));
    return expect(new Set(keys).size === 8 && !page.nextPageKey, `${keys.length} metrics in 2 pages`);
  });
  await check(CLASSIC, "a query of metrics", async () => {
    const data = await metrics.query({
      acceptType: JSON_TYPE, metricSelector: "builtin:service.requestCount.total", resolution: "1m", from: "now-20m",
    });
    return expect(data.resolution === "1m" && data.result[0].data.length === 2, `${data.result[0].data.length} series`);
  });
  // The client asks for CSV and then cannot read it; the HTTP client below it can.
  await check("http-client 1.3.1", "a query of metrics as CSV", async () => {
    const url = "/platform/classic/environment-api/v2/metrics/query?metricSelector=builtin:host.cpu.usage&from=now-5m";
    const answer = await http.send({ url, headers: { Accept: "text/csv; header=present; charset=utf-8" } });
    const table = await answer.body("text");
    return expect(table.startsWith("metricId,dt.entity.host,time,value\n"), `${table.split("\n").length - 2} rows`);
  });
  await check(CLASSIC, "an unknown metric: 404", async () => {
    const error = await refused(() => metrics.metric({ metricKey: "builtin:nothing", acceptType: JSON_TYPE }));
    return expect(error.response?.status === 404 || /404|not found/i.test(error.message), error.message);
  });
  await check(CLASSIC, "ingest of metrics: exactly 202", async () => {
    const call = { body: 'vouch.risk,service="payment" gauge,0.4' };
    const answer = await metrics.ingest(call);
    return expect(answer === undefined || answer.linesOk === 1, "202");
  });
  await check(CLASSIC, "ingest of metrics, one line wrong: 400", async () => {
    const error = await refused(() => metrics.ingest({ body: "vouch.risk 1\ndt.reserved 1" }));
    return expect(error.body?.linesOk === 1 && error.body.linesInvalid === 1, `${error.name}, one line taken`);
  });
  await check(CLASSIC, "ingest of an event: exactly 201", async () => {
    const body = { eventType: "CUSTOM_INFO", title: "Vouch: Pass", entitySelector: 'type("SERVICE")' };
    const answer = await events.createEvent({ body });
    return expect(answer.eventIngestResults.every((r) => r.status === "OK"), `${answer.reportCount} reports`);
  });
  await check(CLASSIC, "events, problems, releases, objectives", async () => {
    const found = await events.getEvents({ eventSelector: 'eventType("CUSTOM_INFO")' });
    const problems = await new classic.ProblemsClient(http).getProblems({ from: "now-2h" });
    const releases = await new classic.ReleasesClient(http).getReleases({});
    const objectives = await new classic.ServiceLevelObjectivesClient(http).getSlo({ evaluate: "true" });
    const counts = [found, problems, releases, objectives].map((list) => list.totalCount);
    return expect(counts[0] === 2 && counts[1] === 1 && counts[3] === 2, counts.join(" "));
  });
  await check(CLASSIC, "429 is told with its Retry-After", async () => {
    const fault = { kind: "throttle", header: "retry_after", seconds: 3 };
    await steer("POST", "/faults", { fault, path: "/platform/classic", calls: 1 });
    const error = await refused(() => metrics.allMetrics({ acceptType: JSON_TYPE }));
    const wait = error.response?.headers?.["retry-after"];
    return expect(error.response?.status === 429 && wait === "3", `429, retry-after ${wait}`);
  });
}

async function queryChecks() {
  const queries = new QueryExecutionClient(http);
  const assistance = new QueryAssistanceClient(http);
  const waiting = { query: QUERY, requestTimeoutMilliseconds: 5000 };

  await check(GRAIL, "a query that is answered at once", async () => {
    const answer = await queries.queryExecute({ body: waiting, enrich: "metric-metadata" });
    const [record] = answer.result.records;
    const metric = answer.result.metadata.metrics[0]["metric.key"];
    return expect(answer.state === "SUCCEEDED" && record.interval === "60000000000", `${metric}, ${record.p95.length} slots`);
  });
  await check(GRAIL, "a query that is polled until it has ended", async () => {
    await steer("POST", "/faults", { fault: { kind: "query_state", polls: 2 } });
    const started = await queries.queryExecute({ body: { query: QUERY } });
    await steer("DELETE", "/faults");
    const states = [started.state];
    let answer;
    do {
      answer = await queries.queryPoll({ requestToken: started.requestToken });
      states.push(answer.state);
    } while (answer.state === "RUNNING");
    return expect(answer.result.records.length === 2 && states.length === 4, states.join(" "));
  });
  await check(GRAIL, "a result that is gone: 410", async () => {
    const { requestToken } = await queries.queryExecute({ body: { query: QUERY } });
    await queries.queryPoll({ requestToken });
    const error = await refused(() => queries.queryPoll({ requestToken }));
    return expect(error.response?.status === 410 || /GONE/.test(error.message), error.message);
  });
  await check(GRAIL, "a query that is cancelled: exactly 202", async () => {
    await steer("POST", "/faults", { fault: { kind: "query_state", polls: 9 } });
    const { requestToken } = await queries.queryExecute({ body: { query: QUERY } });
    await steer("DELETE", "/faults");
    return expect((await queries.queryCancel({ requestToken })) === undefined, "202, no body");
  });
  await check(GRAIL, "a query that is wrong: 400 with its position", async () => {
    const error = await refused(() => queries.queryExecute({ body: { ...waiting, query: "timeseries avg(" } }));
    const position = error.body?.error?.details?.syntaxErrorPosition?.start;
    return expect(position?.index === 15, `line ${position?.line}, column ${position?.column}`);
  });
  await check(GRAIL, "429 with retryAfterSeconds", async () => {
    const fault = { kind: "throttle", header: "retry_after", seconds: 4 };
    await steer("POST", "/faults", { fault, path: "/platform/storage", calls: 1 });
    const error = await refused(() => queries.queryExecute({ body: waiting }));
    return expect(error.body?.error?.retryAfterSeconds === 4, error.message);
  });
  await check(GRAIL, "verify and parse", async () => {
    const verified = await assistance.queryVerify({ body: { query: QUERY } });
    const tree = await assistance.queryParse({ body: { query: QUERY } });
    return expect(verified.valid && tree.children.length === 1, `valid, ${tree.children[0].children[0].canonicalString}`);
  });
  await check(GRAIL, "an OAuth client", async () => {
    const scopes = ["storage:buckets:read", "storage:metrics:read"];
    const config = { clientId: "dt0s02.CLIENTS", secret: OAUTH_SECRET, scopes, environmentUrl: base };
    const client = new _OAuthHttpClient({ ...config, authUrl: `${base}/sso/oauth2/token` });
    const answer = await new QueryExecutionClient(client).queryExecute({ body: waiting });
    return expect(answer.state === "SUCCEEDED", `${answer.result.records.length} records`);
  });
  await check(GRAIL, "a wrong token: 401", async () => {
    const error = await refused(() => new QueryExecutionClient(bearer("dt0s16.NO.NO")).queryExecute({ body: waiting }));
    return expect(error.isApiGatewayError === true || error.response?.status === 401, error.name);
  });
}

classicChecks()
  .then(queryChecks)
  .then(() => process.exit(failed ? 1 : 0));
