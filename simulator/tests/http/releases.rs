//! Releases: which version runs where.

use crate::harness::{DAY, HOUR, Harness, MINUTE, START};
use serde_json::{Value, json};
use vouch_simulator::{Effect, Incident, ProblemSpec, instance_id};

const PATH: &str = "/api/v2/releases";

fn versions(answer: &Value) -> Vec<(String, String, usize)> {
    let releases = answer["releases"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    releases
        .iter()
        .map(|r| (text(&r["name"]), text(&r["version"]), r["instances"].as_array().unwrap().len()))
        .collect()
}

#[tokio::test]
async fn versions_and_their_instances() {
    let h = Harness::scenario("demo", START).await;
    assert_eq!(h.get(PATH, &[], 200).await["totalCount"], 0, "nothing has been deployed");
    h.set_now(START + HOUR);
    let owned = |all: &[(&str, &str, usize)]| {
        all.iter()
            .map(|(name, version, n)| ((*name).to_owned(), (*version).to_owned(), *n))
            .collect::<Vec<_>>()
    };
    let answer = h.get(PATH, &[], 200).await;
    assert_eq!(versions(&answer), owned(&[("payment", "2.4.0", 3), ("checkout", "1.1.0", 3)]));
    let release = &answer["releases"][1];
    assert!(release["releaseEntityId"].as_str().unwrap().starts_with("PROCESS_GROUP-"));
    assert_eq!(
        (&release["running"], &release["stage"], &release["problemCount"], &release["affectedByProblems"]),
        (&json!(true), &json!("prod"), &json!(0), &json!(false))
    );
    assert_eq!(
        release["instances"][0],
        json!({"entityId": instance_id("checkout", "checkout-7d9f-a"), "problems": [], "securityVulnerabilities": []})
    );
    h.handle.deploy("checkout", "1.2.0", START + 30 * MINUTE, Effect::Healthy).unwrap();
    let expected = [("checkout", "1.2.0", 3), ("payment", "2.4.0", 3), ("checkout", "1.1.0", 0)];
    assert_eq!(versions(&h.get(PATH, &[], 200).await), owned(&expected));
    assert_eq!(h.handle.rollback("checkout").unwrap(), "1.2.0");
    let expected = [("checkout", "1.2.0", 0), ("payment", "2.4.0", 3), ("checkout", "1.1.0", 3)];
    assert_eq!(versions(&h.get(PATH, &[], 200).await), owned(&expected));
    for (selector, count) in [
        ("entityName(\"check\"),monitoringState(\"Active\")", 1),
        ("releasesVersion(\"2.4\")", 1),
        ("releasesStage(\"PROD\"),type(PROCESS_GROUP_INSTANCE)", 3),
        ("healthState(UNHEALTHY)", 0),
    ] {
        assert_eq!(
            h.get(PATH, &[("releasesSelector", selector)], 200).await["totalCount"],
            count,
            "{selector}"
        );
    }
    h.get(PATH, &[("releasesSelector", "affectedBySecurityProblem(\"x\")")], 400).await;
    let page = h.get(PATH, &[("pageSize", "2")], 200).await;
    let key = page["nextPageKey"].as_str().unwrap();
    let last = h.get(PATH, &[("nextPageKey", key)], 200).await;
    assert_eq!((last["releases"].as_array().unwrap().len(), last.get("nextPageKey")), (1, None));
    h.get(PATH, &[("nextPageKey", key), ("pageSize", "2")], 400).await;
    h.set_now(START + 20 * DAY);
    assert_eq!(
        versions(&h.get(PATH, &[], 200).await).len(),
        2,
        "what no longer runs is forgotten after two weeks"
    );
    h.end().await;
}

#[tokio::test]
async fn canaries_and_problems() {
    let h = Harness::scenario("canary-bad", START + 15 * MINUTE).await;
    let answer = h.get(PATH, &[], 200).await;
    assert!(
        versions(&answer).iter().all(|(_, _, instances)| *instances >= 1),
        "only the canaries run it: {answer}"
    );
    let effect = Effect::LatencyStep { factor: 2.0 };
    let incident = Incident::new("checkout", START + 5 * MINUTE, effect);
    h.handle.incident(Incident { problem: Some(ProblemSpec::default()), ..incident }).unwrap();
    let answer = h.get(PATH, &[("releasesSelector", "entityName(checkout)")], 200).await;
    assert_eq!(
        (&answer["releasesWithProblems"], &answer["releases"][0]["problemCount"]),
        (&json!(1), &json!(1))
    );
    h.end().await;
}
