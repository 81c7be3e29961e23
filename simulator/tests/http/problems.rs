//! Incidents: what the services feel of them, and the problems that Dynatrace opens.

use crate::harness::{HOUR, Harness, METRICS_ONLY, MINUTE, START, message, read};
use serde_json::{Value, json};
use vouch_simulator::{Effect, Incident, ProblemSpec, Scenario, Simulator, service_id};

const PATH: &str = "/api/v2/problems";

/// `a` and `b` call `db`, `c` calls `a`; nothing happens unless `incidents` say so.
fn shop(incidents: &str) -> Scenario {
    let text = format!(
        "{{name: shop, seed: 3, dependencies: [{{name: db, database: true}}, {{name: queue}}], services: [
           {{name: a, hosts: [a1, a2], calls: [db]}}, {{name: b, hosts: [b1], calls: [db]}},
           {{name: c, hosts: [c1], calls: [a]}}], incidents: [{incidents}]}}"
    );
    Scenario::parse(&text).unwrap()
}

async fn seen(scenario: Scenario, now: i64) -> Harness {
    Harness::new(Simulator::builder().scenario(scenario).start_ms(START), now).await
}

async fn latency(h: &Harness, service: &str) -> Vec<f64> {
    let id = service_id(service);
    let selector =
        format!("builtin:service.response.time:filter(eq(\"dt.entity.service\",{id})):splitBy():median");
    let values = h.values(&selector, (START, START + HOUR)).await;
    values.into_iter().map(Option::unwrap).collect()
}

async fn failed(h: &Harness, service: &str) -> Vec<Option<f64>> {
    let id = service_id(service);
    let selector = format!("builtin:service.errors.total.count:filter(eq(\"dt.entity.service\",{id})):value");
    h.values(&selector, (START, START + HOUR)).await
}

fn titles(answer: &Value) -> Vec<&str> {
    answer["problems"].as_array().unwrap().iter().map(|p| p["title"].as_str().unwrap()).collect()
}

/// With an incident over without it, minute by minute.
async fn ratios(incidents: &str, service: &str) -> Vec<f64> {
    let (with, without) =
        (seen(shop(incidents), START + 2 * HOUR).await, seen(shop(""), START + 2 * HOUR).await);
    let ratios =
        latency(&with, service).await.into_iter().zip(latency(&without, service).await).map(|(a, b)| a / b);
    let ratios = ratios.collect();
    with.end().await;
    without.end().await;
    ratios
}

#[tokio::test]
async fn the_callers_feel_their_shares_and_nobody_else() {
    let step = "{at_minutes: 10, until_minutes: 30.5, on: db, shares: {b: 0.5},
                 effect: {kind: latency_step, factor: 4}}";
    for (service, felt) in [("a", 4.0), ("b", 2.0), ("c", 1.0)] {
        let ratios = ratios(step, service).await;
        let same = |range: std::ops::Range<usize>, expected: f64| {
            ratios[range.clone()].iter().all(|r| (r / expected - 1.0).abs() < 1e-9) || {
                panic!("{service}: {:?}", &ratios[range])
            }
        };
        assert!(same(0..10, 1.0) && same(10..30, felt) && same(30..31, (felt + 1.0) / 2.0));
        assert!(same(31..60, 1.0));
    }
    let own =
        ratios("{at_minutes: 10, on: a, effect: {kind: latency_ramp, factor: 3, minutes: 20}}", "a").await;
    assert!((own[19] - 2.0).abs() < 1e-9 && (own[59] - 3.0).abs() < 1e-9, "a service feels its own: {own:?}");
}

#[tokio::test]
async fn incidents_add_to_deployments_and_change_no_other_number() {
    let incident = "{at_minutes: 20, on: db, shares: {b: 0}, effect: {kind: error_step, rate: 0.2}}";
    let (with, without) =
        (seen(shop(incident), START + 2 * HOUR).await, seen(shop(""), START + 2 * HOUR).await);
    for h in [&with, &without] {
        h.handle.deploy("a", "2", START + 10 * MINUTE, Effect::ErrorStep { rate: 0.1 }).unwrap();
    }
    let sum = |values: &[Option<f64>]| values.iter().flatten().sum::<f64>();
    let (a, before) = (failed(&with, "a").await, failed(&without, "a").await);
    assert_eq!(a[..20], before[..20], "nothing before it");
    let ratio = sum(&a[20..]) / sum(&before[20..]);
    assert!((ratio - 0.302 / 0.102).abs() < 0.15, "{ratio}");
    for service in ["b", "c"] {
        assert_eq!(failed(&with, service).await, failed(&without, service).await, "{service}");
    }
    assert_eq!(latency(&with, "a").await, latency(&without, "a").await);
    with.end().await;
    without.end().await;
}

#[tokio::test]
async fn a_problem_is_open_from_its_detection_to_the_end() {
    let incident = "{at_minutes: 12, until_minutes: 40, on: db, problem: {after_minutes: 5},
                     effect: {kind: latency_step, factor: 2}}";
    let h = seen(shop(incident), START + 17 * MINUTE - 1).await;
    let none = h.get(PATH, &[], 200).await;
    assert_eq!(none, json!({"totalCount": 0, "pageSize": 50, "problems": [], "warnings": []}));
    h.set_now(START + 17 * MINUTE);
    let answer = h.get(PATH, &[], 200).await;
    let entity = |name| json!({"entityId": {"id": service_id(name), "type": "SERVICE"}, "name": name});
    let mut expected = json!({
        "problemId": answer["problems"][0]["problemId"], "displayId": "P-1",
        "title": "Response time degradation", "impactLevel": "SERVICES", "severityLevel": "PERFORMANCE",
        "status": "OPEN", "affectedEntities": [entity("a"), entity("b")],
        "impactedEntities": [entity("a"), entity("b")], "rootCauseEntity": entity("db"),
        "managementZones": [], "entityTags": [], "problemFilters": [],
        "startTime": START + 12 * MINUTE, "endTime": -1,
    });
    assert_eq!(answer["problems"], json!([expected]));
    assert_eq!(answer["totalCount"], 1);
    let id = answer["problems"][0]["problemId"].as_str().unwrap();
    assert!(id.ends_with(&format!("_{}V2", START + 12 * MINUTE)), "{id}");
    assert_eq!(h.get(&format!("{PATH}/{id}"), &[], 200).await, expected);
    h.set_now(START + 40 * MINUTE);
    expected["status"] = json!("CLOSED");
    expected["endTime"] = json!(START + 40 * MINUTE);
    assert_eq!(h.get(PATH, &[], 200).await["problems"], json!([expected]));
    let fields = [("fields", "+evidenceDetails,+impactAnalysis,+recentComments")];
    let more = h.get(&format!("{PATH}/{id}"), &fields, 200).await;
    assert_eq!(more["evidenceDetails"], json!({"totalCount": 0, "details": []}));
    assert_eq!(more.as_object().unwrap().len(), 17);
    let unknown = h.get(&format!("{PATH}/1_2V2"), &[], 404).await;
    assert_eq!(message(&unknown), "Problem with ID '1_2V2' not found.");
    h.end().await;
}

#[tokio::test]
async fn windows() {
    let incident = "{at_minutes: 12, until_minutes: 40, on: db, problem: {},
                     effect: {kind: latency_step, factor: 2}}";
    let h = seen(shop(incident), START + HOUR).await;
    for (from, to, count) in [(0, 12, 0), (0, 13, 1), (39, 60, 1), (40, 60, 0), (20, 21, 1)] {
        let at = |minute: i64| (START + minute * MINUTE).to_string();
        let answer = h.get(PATH, &[("from", &at(from)), ("to", &at(to))], 200).await;
        assert_eq!(answer["totalCount"], count, "{from}..{to}");
    }
    h.set_now(START + 40 * MINUTE + 2 * HOUR - 1);
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 1);
    h.set_now(START + 40 * MINUTE + 2 * HOUR);
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 0, "the last two hours unless said otherwise");
    h.end().await;
}

/// Two closed and one open problem.
const THREE: &str = "
    {at_minutes: 0, until_minutes: 10, on: db, problem: {title: first}, effect: {kind: latency_step, factor: 2}},
    {at_minutes: 20, on: db, problem: {title: second}, effect: {kind: error_step, rate: 0.1}},
    {at_minutes: 30, until_minutes: 50, on: b, problem: {title: third}, effect: {kind: latency_ramp, factor: 2, minutes: 5}},
    {at_minutes: 30, on: b, effect: {kind: error_step, rate: 0.1}}";

#[tokio::test]
async fn selectors() {
    let h = seen(shop(THREE), START + HOUR).await;
    let (a, b, c, db) = (service_id("a"), service_id("b"), service_id("c"), service_id("db"));
    for (selector, expected) in [
        (String::new(), vec!["third", "second", "first"]),
        ("status(\"open\")".into(), vec!["second"]),
        ("status(\"OPEN\",\"closed\")".into(), vec!["third", "second", "first"]),
        ("status(\"closed\"),severityLevel(\"ERROR\")".into(), vec![]),
        ("severityLevel(\"ERROR\",\"AVAILABILITY\")".into(), vec!["second"]),
        ("severityLevel(\"PERFORMANCE\"),impactLevel(\"SERVICES\")".into(), vec!["third", "first"]),
        ("impactLevel(\"APPLICATION\")".into(), vec![]),
        (format!("affectedEntities(\"{a}\")"), vec!["second", "first"]),
        (format!("impactedEntities(\"{a}\",\"{b}\")"), vec!["third", "second", "first"]),
        (format!("affectedEntities(\"{db}\",\"{c}\")"), vec![]),
        (format!("rootCauseEntity(\"{db}\"),status(\"open\")"), vec!["second"]),
        ("displayId(\"P-1\",\"P-3\")".into(), vec!["third", "first"]),
        ("problemId(\"1_2V2\")".into(), vec![]),
    ] {
        let answer = h.get(PATH, &[("problemSelector", selector.as_str())], 200).await;
        assert_eq!(titles(&answer), expected, "{selector}");
    }
    let id = h.get(PATH, &[], 200).await["problems"][1]["problemId"].as_str().unwrap().to_owned();
    let answer = h.get(PATH, &[("problemSelector", &format!("problemId(\"{id}\")"))], 200).await;
    assert_eq!(titles(&answer), ["second"]);
    let of_a = [("entitySelector", "type(SERVICE),entityName.equals(a)")];
    assert_eq!(titles(&h.get(PATH, &of_a, 200).await), ["second", "first"]);
    for (sort, expected) in
        [("startTime", ["first", "second", "third"]), ("+status,-startTime", ["second", "third", "first"])]
    {
        assert_eq!(titles(&h.get(PATH, &[("sort", sort)], 200).await), expected, "{sort}");
    }
    h.end().await;
}

#[tokio::test]
async fn pages() {
    let h = seen(shop(THREE), START + HOUR).await;
    let first = [("pageSize", "1"), ("problemSelector", "status(\"closed\")"), ("from", "now-90m")];
    let page = h.get(PATH, &first, 200).await;
    assert_eq!(
        (titles(&page), &page["totalCount"], &page["pageSize"]),
        (vec!["third"], &json!(2), &json!(1))
    );
    let key = page["nextPageKey"].as_str().unwrap();
    let last = h.get(PATH, &[("nextPageKey", key)], 200).await;
    assert_eq!((titles(&last), last.get("nextPageKey")), (vec!["first"], None));
    h.get(PATH, &[("nextPageKey", key), ("sort", "status")], 400).await;
    h.end().await;
}

#[tokio::test]
async fn refusals() {
    let h = seen(shop(THREE), START + HOUR).await;
    for (name, value, part) in [
        ("problemSelector", "text(\"x\")", "'text(\"x\")' is unknown, or not supported by this simulator"),
        ("problemSelector", "managementZones(\"x\")", "not supported by this simulator"),
        ("problemSelector", "status(open)", "needs one or more quoted values"),
        ("problemSelector", "status()", "needs one or more quoted values"),
        ("problemSelector", "status(\"new\")", "is unknown; there are OPEN, CLOSED"),
        ("problemSelector", "open", "is no criterion"),
        ("entitySelector", "tag(x)", "must contain either a type"),
        ("fields", "+colour", "'colour' is unknown"),
        ("sort", "relevance", "'relevance' is unknown, or not supported"),
        ("pageSize", "501", "between 1 and 500"),
        ("from", "x", "is no timestamp"),
    ] {
        let answer = h.get(PATH, &[(name, value)], 400).await;
        let violation = &answer["error"]["constraintViolations"][0];
        assert_eq!(violation["path"], name, "{value}: {answer}");
        assert!(violation["message"].as_str().unwrap().contains(part), "{value}: {answer}");
    }
    let unfinished = h.get(PATH, &[("problemSelector", "status(\"open\"")], 400).await;
    assert!(message(&unfinished).starts_with("Failed to parse selector"), "{unfinished}");
    for path in [PATH.to_owned(), format!("{PATH}/1_2V2")] {
        let request = reqwest::Client::new()
            .get(format!("{}{path}", h.url))
            .header("Authorization", format!("Api-Token {METRICS_ONLY}"));
        let answer = read(request.send().await.unwrap(), 403).await;
        assert_eq!(
            message(&answer),
            "Token is missing required scope. Use one of: problems.read (Read problems)"
        );
    }
    h.end().await;
}

#[tokio::test]
async fn an_incident_is_started_at_run_time() {
    let h = seen(shop(""), START + 20 * MINUTE).await;
    let incident = Incident {
        until_ms: Some(START + 30 * MINUTE),
        problem: Some(ProblemSpec { title: Some("slow".into()), after_minutes: 0.0 }),
        ..Incident::new("db", START + 20 * MINUTE, Effect::LatencyStep { factor: 3.0 })
    };
    h.handle.incident(incident.clone()).unwrap();
    h.handle.incident(incident).unwrap();
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 0, "`to` is not in the window");
    h.set_now(START + 20 * MINUTE + 1);
    let answer = h.get(PATH, &[], 200).await;
    assert_eq!(titles(&answer), ["slow", "slow"]);
    assert_ne!(answer["problems"][0]["problemId"], answer["problems"][1]["problemId"]);
    let body = json!({
        "on": "a", "effect": {"kind": "error_step", "rate": 0.5}, "shares": {"c": 0.0}, "problem": {},
    });
    let started = h.post("/_simulator/incident", body, 201).await;
    assert_eq!(started, json!({"on": "a", "at_ms": START + 20 * MINUTE + 1, "until_ms": null}), "now");
    h.set_now(START + 2 * HOUR);
    let open = h.get(PATH, &[("problemSelector", "status(\"open\")")], 200).await;
    assert_eq!(titles(&open), ["Failure rate increase"]);
    let errors = failed(&h, "a").await;
    assert!(errors[19].unwrap() * 20.0 < errors[21].unwrap(), "{errors:?}");
    let latency = latency(&h, "a").await;
    assert!(
        latency[25] / latency[19] > 7.0 && latency[31] / latency[19] < 1.5,
        "twice by three: {latency:?}"
    );
    h.end().await;
}

#[tokio::test]
async fn impossible_incidents_are_refused() {
    let h = seen(shop(""), START).await;
    let step = json!({"kind": "latency_step", "factor": 2});
    for (body, expected) in [
        (
            json!({"on": "x", "effect": step}),
            "on: `x` is no service and no dependency; there are a, b, c, db, queue",
        ),
        (json!({"on": "queue", "effect": step}), "on: no service calls `queue`, so that none is hit"),
        (
            json!({"on": "db", "effect": {"kind": "no_traffic"}}),
            "effect.kind: `no_traffic` is for deployments; an incident has latency_step, latency_ramp or error_step",
        ),
        (
            json!({"on": "db", "effect": {"kind": "error_step", "rate": 2}}),
            "effect.rate: 2 is not within 0 to 1; it is a share",
        ),
        (
            json!({"on": "db", "effect": step, "shares": {"c": 1}}),
            "shares.c: `c` is not hit by `db`; hit are a, b",
        ),
        (
            json!({"on": "db", "effect": step, "shares": {"a": 1.5}}),
            "shares.a: 1.5 is not within 0 to 1; it is a share",
        ),
        (json!({"on": "db", "effect": step, "until_ms": START}), "until_ms: is not after the beginning"),
        (
            json!({"on": "db", "effect": step, "problem": {"after_minutes": -1}}),
            "problem.after_minutes: -1 is not within 0 to 100000000",
        ),
        (
            json!({"on": "db", "effect": step, "until_ms": START + 3 * MINUTE, "problem": {}}),
            "problem.after_minutes: the incident is over before 3 minutes; detect it earlier",
        ),
        (
            json!({"on": "db", "effect": step, "problem": {"title": " "}}),
            "problem.title: is empty; leave it out for Dynatrace's own",
        ),
    ] {
        let answer = h.post("/_simulator/incident", body, 400).await;
        assert_eq!(message(&answer), expected);
    }
    h.post("/_simulator/incident", json!({"on": "db"}), 400).await;
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 0);
    h.end().await;
    let incident =
        |text: &str| format!("{{at_minutes: 5, on: db, effect: {{kind: latency_step, factor: 2}}, {text}}}");
    for (text, expected) in [
        ("until_minutes: 5", "incidents[0].until_minutes: 5 is not after `at_minutes`, 5"),
        ("until_minutes: .inf", "incidents[0].until_minutes: inf is not within -100000000 to 100000000"),
        ("shares: {c: 1}", "incidents[0].shares.c: `c` is not hit by `db`; hit are a"),
    ] {
        let text = format!(
            "{{name: x, dependencies: [{{name: db}}], incidents: [{}], services: [
               {{name: a, hosts: [h], calls: [db]}}, {{name: c, hosts: [h]}}]}}",
            incident(text)
        );
        assert_eq!(Scenario::parse(&text).unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn recorded_cases_have_no_problems() {
    let case = json!({"id": "c", "metrics": {"m": {"unit": "ms"}}, "series": []});
    let case = serde_json::from_value(case).unwrap();
    let h = Harness::new(Simulator::builder().replay_cases(vec![case], START), START).await;
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 0);
    let body = json!({"on": "c", "effect": {"kind": "latency_step", "factor": 2}});
    h.post("/_simulator/incident", body, 409).await;
    h.end().await;
}

#[tokio::test]
async fn the_shared_database_slows_its_callers() {
    let named = || Scenario::named("shared-database").unwrap();
    let with = seen(named(), START + 2 * HOUR).await;
    let without = seen(named().without_incidents(), START + 2 * HOUR).await;
    for (service, factor) in [
        ("checkout", 1.8),
        ("cart", 1.6),
        ("orders", 1.7),
        ("storefront", 1.0),
        ("search", 1.0),
        ("profile", 1.0),
    ] {
        let (a, b) = (latency(&with, service).await, latency(&without, service).await);
        assert_eq!(a[..13], b[..13], "{service}");
        assert!(
            (a[13..].iter().sum::<f64>() / b[13..].iter().sum::<f64>() - factor).abs() < 0.02,
            "{service}"
        );
    }
    let problems = with.get(PATH, &[], 200).await;
    assert_eq!(problems["problems"][0]["rootCauseEntity"]["name"], "orders-db");
    assert_eq!(problems["problems"][0]["affectedEntities"].as_array().unwrap().len(), 3);
    with.end().await;
    without.end().await;
}
