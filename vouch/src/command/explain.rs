//! `vouch explain`: what a verdict rests on, for a person: a sentence, charts, states, evidence; and a picture.

use crate::chart::terminal::Style;
use crate::chart::{Picture, svg, terminal};
use crate::client::{ServerArguments, explain};
use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal as _, stdin, stdout};
use std::path::{Path, PathBuf};
use vouch_analyzer::case::Case;
use vouch_analyzer::evidence::{self, Evidence, UnitEvidence, bundle};
use vouch_analyzer::judge::JudgeSettings;
use vouch_proto::{Outcome, Witness, v1};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Largest answer that is taken.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// Width where none is known.
const USUAL_WIDTH: usize = 100;

const HELP: &str = "\
Examples:
  vouch explain 01KADX2V3S0000000000000000.1
  vouch explain 01KADX2V3S0000000000000000.1 --metric response_time --svg why.svg
  vouch explain cases.jsonl.gz --case shop-17";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Id of a verification, as `verify` prints it; or a file of cases or evidence, plain or gzip; `-` for standard input.
    #[arg(value_name = "ID|FILE")]
    what: String,
    /// Of a file, the case with this id; the first one where it is not given.
    #[arg(long, value_name = "ID")]
    case: Option<String>,
    /// Only this metric.
    #[arg(long)]
    metric: Option<String>,
    /// Only this host; `*` is all new hosts together.
    #[arg(long)]
    host: Option<String>,
    /// How many metrics and hosts to show, the most suspicious first.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    units: u16,
    /// Write a picture of the first of them.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the evidence, one JSON object that `vouch judge` reads.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Columns of the charts; those of the terminal where it is not given.
    #[arg(long, env = "COLUMNS", hide_env_values = true, value_name = "N")]
    width: Option<u16>,
    /// Use no colours, also on a terminal.
    #[arg(long, env = "NO_COLOR", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    no_color: bool,
    #[command(flatten)]
    server: ServerArguments,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let text = if is_file(&arguments.what) {
        match read(&arguments.what, arguments.case.as_deref()) {
            Ok(text) => text,
            Err(e) => {
                output::error(&e);
                return exit::NO_INPUT;
            }
        }
    } else {
        match ask(&arguments).await {
            Ok(text) => text,
            Err((code, e)) => {
                output::error(&e);
                return code;
            }
        }
    };
    match show(&arguments, &text) {
        Ok(()) => exit::OK,
        Err((code, e)) => {
            output::error(&e);
            code
        }
    }
}

/// Ids hold no separator and no such ending.
fn is_file(what: &str) -> bool {
    let path = Path::new(what);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    what == "-" || what.contains('/') || path.exists() || ["json", "jsonl", "gz"].contains(&ending)
}

/// The line of a file that holds the case.
fn read(name: &str, wanted: Option<&str>) -> Result<String, String> {
    let unreadable = |e: std::io::Error| format!("{name} cannot be read: {e}");
    let mut reader: Box<dyn BufRead> = if name == "-" {
        Box::new(BufReader::new(stdin()))
    } else {
        Box::new(BufReader::new(std::fs::File::open(name).map_err(unreadable)?))
    };
    let packed = reader.fill_buf().map_err(unreadable)?.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn BufRead> =
        if packed { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { reader };
    for line in reader.lines() {
        let line = line.map_err(unreadable)?;
        let is_wanted = wanted.is_none_or(|id| Case::id_from_json(&line).as_deref() == Some(id));
        if !line.trim().is_empty() && is_wanted {
            return Ok(line);
        }
    }
    Err(match wanted {
        Some(id) => format!("{name} has no case `{id}`"),
        None => format!("{name} is empty; give a file with one case a line"),
    })
}

/// The bundle of a verification.
async fn ask(arguments: &Arguments) -> Result<String, (Code, String)> {
    let client = arguments.server.client().map_err(|e| (exit::USAGE, format!("{e:#}")))?;
    let request = v1::GetEvidenceRequest { verification_id: arguments.what.clone() };
    let answer = client.max_decoding_message_size(MAX_ANSWER_BYTES).get_evidence(request).await;
    let answer = answer.map_err(|status| (exit::ERROR, explain(&arguments.server.server, &status)))?;
    let mut text = String::new();
    let mut packed = MultiGzDecoder::new(answer.get_ref().bundle.as_slice());
    std::io::Read::read_to_string(&mut packed, &mut text)
        .map_err(|e| (exit::ERROR, format!("the evidence cannot be read: {e}")))?;
    Ok(text)
}

fn show(arguments: &Arguments, text: &str) -> Result<(), (Code, String)> {
    let malformed = |e: String| (exit::MALFORMED, e);
    let case = Case::from_json(text).map_err(|e| malformed(e.to_string()))?;
    let about = bundle::about(text).map_err(|e| malformed(e.to_string()))?;
    let evidence =
        evidence::of_case(&case, &JudgeSettings::default()).map_err(|e| malformed(e.to_string()))?;
    let units = chosen(&evidence, arguments).map_err(|e| (exit::USAGE, e))?;
    if let Some(file) = &arguments.bundle {
        std::fs::write(file, format!("{}\n", text.trim_end()))
            .map_err(|e| (exit::ERROR, format!("--bundle: {} cannot be written: {e}", file.display())))?;
    }
    if let (Some(file), Some(unit)) = (&arguments.svg, units.first()) {
        svg::write(file, &headline(&evidence, about.as_ref()), &Picture::new(&evidence, unit))
            .map_err(|e| (exit::ERROR, format!("{e:#}")))?;
    }
    let mut said = vec![headline(&evidence, about.as_ref())];
    if let Some(about) = &about {
        said.push(subject(about));
    }
    said.extend(surroundings(&case, &evidence));
    for unit in &units {
        said.push(String::new());
        said.push(terminal::draw(&Picture::new(&evidence, unit), style(arguments)).trim_end().to_owned());
        let query = about.as_ref().and_then(|about| about.queries.get(&unit.metrics[0]));
        said.extend(words(unit, query.map(String::as_str)));
    }
    let left = evidence.units.len() - units.len();
    if left > 0 && arguments.metric.is_none() && arguments.host.is_none() {
        said.push(format!("\n{left} more metrics and hosts: --units, --metric, --host"));
    }
    write(&said.join("\n"))
}

fn write(text: &str) -> Result<(), (Code, String)> {
    match std::io::Write::write_all(&mut stdout(), format!("{text}\n").as_bytes()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err((exit::ERROR, e.to_string())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The verdict as it was published; of a case, as it is judged here.
fn headline(evidence: &Evidence, about: Option<&bundle::About>) -> String {
    if let Some(about) = about {
        return format!("{}: {}", about.verdict.outcome.as_str().to_uppercase(), about.verdict.reason);
    }
    let judgement = &evidence.judgement;
    let outcome = judgement.outcome.unwrap_or(Outcome::Inconclusive).as_str().to_uppercase();
    format!("{outcome}: {}", judgement.reason)
}

/// What the verdict is about.
fn subject(about: &bundle::About) -> String {
    let verdict = &about.verdict;
    let from =
        verdict.verification.map_or(String::new(), |window| format!(", minute 0 is {}", window.start()));
    format!(
        "{} {} in {}, verification {}{from}",
        verdict.service, verdict.version, verdict.environment, verdict.verification_id
    )
}

/// What went on around the service, as far as the verdict rests on it.
fn surroundings(case: &Case, evidence: &Evidence) -> Vec<String> {
    let cause = evidence.judgement.common_cause.iter();
    let witness = |one: &Witness| {
        let size = if case.metrics.get(&one.metric).is_some_and(|metric| metric.exposure.is_some()) {
            format!("{:+.2} points", 100.0 * one.effect)
        } else {
            format!("worse by {:.0} %", 100.0 * one.effect)
        };
        format!("  witness  {}: {} {size} since minute {}", one.service, one.metric, one.since_minute)
    };
    let left_out = case.left_out.iter().map(|one| {
        let [start, end] = one.window;
        format!(" left out  minutes {start} to {end} of the references: {}", one.why)
    });
    cause.flat_map(|cause| cause.witnesses.iter().map(witness)).chain(left_out).collect()
}

/// The units that were asked for, the most suspicious first.
fn chosen<'a>(evidence: &'a Evidence, arguments: &Arguments) -> Result<Vec<&'a UnitEvidence>, String> {
    let metric = |unit: &&UnitEvidence| arguments.metric.as_ref().is_none_or(|m| unit.metrics.contains(m));
    let host = |unit: &&UnitEvidence| arguments.host.as_ref().is_none_or(|host| unit.host == *host);
    let units: Vec<&UnitEvidence> = evidence.units.iter().filter(metric).filter(host).collect();
    if units.is_empty() && (arguments.metric.is_some() || arguments.host.is_some()) {
        let known: std::collections::BTreeSet<String> =
            evidence.units.iter().map(|unit| format!("{} on {}", unit.metrics[0], unit.host)).collect();
        let known: Vec<String> = known.into_iter().collect();
        return Err(format!("--metric, --host: nothing fits; there is {}", known.join(", ")));
    }
    Ok(units.into_iter().take(usize::from(arguments.units)).collect())
}

/// What a unit's letters, states and settings say.
fn words(unit: &UnitEvidence, query: Option<&str>) -> Vec<String> {
    let states: Vec<String> =
        unit.states().iter().map(|(state, steps)| format!("{state} x{steps}")).collect();
    let word = unit.word();
    let lines = [
        ("against", Some(unit.against.to_owned())),
        ("states", (!states.is_empty()).then(|| states.join(", "))),
        ("SAX word", (!word.is_empty()).then_some(word)),
        (
            "placebo",
            (unit.placebo > 0.05)
                .then(|| format!("{:.1} nats, reached before the deployment; taken off", unit.placebo)),
        ),
        ("query", query.map(ToOwned::to_owned)),
    ];
    lines.into_iter().filter_map(|(name, text)| Some(format!("{name:>9}  {}", text?))).collect()
}

/// Colours on a terminal that wants them; the width of it where none is given.
fn style(arguments: &Arguments) -> Style {
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0);
    let width = arguments.width.or_else(terminal).map_or(USUAL_WIDTH, usize::from);
    Style { width, colour: stdout().is_terminal() && !arguments.no_color }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vouch_analyzer::case::{CaseMetric, HostGroup, LeftOut, Neighbour};
    use vouch_proto::{Direction, Relation, Strategy};

    /// A service whose latency is `ratio` times the usual one after the deployment.
    fn case(ratio: f64) -> Case {
        let value = |minute: i64| {
            let wobble =
                [0.0, 3.0, -2.0, 1.0, -3.0, 2.0, -1.0][usize::try_from(minute.rem_euclid(7)).unwrap()];
            Some((100.0 + wobble) * if minute >= 3 { ratio } else { 1.0 })
        };
        Case::new("shop", Strategy::Previous, 1, [0, 20])
            .with_baseline([-60, 0])
            .with_metric("response_time", CaseMetric::judged("ms", Direction::Increase))
            .with_metric("throughput", CaseMetric::judged("1/min", Direction::Decrease))
            .with_metric("errors", CaseMetric::count("1/min", "throughput"))
            .with_host("service", HostGroup::Service, Some(0))
            .with_series("response_time", "service", -60, (-60..20).map(value).collect())
            .with_series("throughput", "service", -60, vec![Some(500.0); 80])
            .with_series("errors", "service", -60, vec![Some(1.0); 80])
    }

    pub(crate) fn evidence(ratio: f64) -> Evidence {
        evidence::of_case(&case(ratio), &JudgeSettings::default()).unwrap()
    }

    fn arguments(what: &str) -> Arguments {
        #[derive(Debug, clap::Parser)]
        struct Parser {
            #[command(flatten)]
            arguments: Arguments,
        }
        let words: Vec<&str> = ["explain"].into_iter().chain(what.split(' ')).collect();
        <Parser as clap::Parser>::try_parse_from(words).unwrap().arguments
    }

    #[test]
    fn ids_and_files_are_told_apart() {
        assert!(!is_file("01KADX2V3S0000000000000000.1"));
        assert!(["-", "a.jsonl", "b.jsonl.gz", "./x", "Cargo.toml"].into_iter().all(is_file));
    }

    #[test]
    fn the_most_suspicious_come_first_and_what_is_not_there_is_named() {
        let evidence = evidence(1.6);
        let first = chosen(&evidence, &arguments("x --units 1")).unwrap();
        assert_eq!(first[0].metrics, ["response_time"]);
        let errors = chosen(&evidence, &arguments("x --metric errors")).unwrap();
        assert_eq!(errors.len(), 1);
        let said = chosen(&evidence, &arguments("x --metric latency")).unwrap_err();
        assert!(said.contains("errors on service, response_time on service"), "{said}");
    }

    #[test]
    fn words_say_states_letters_and_against_what() {
        let evidence = evidence(1.6);
        let said = words(&evidence.units[0], Some("builtin:x")).join("\n");
        for part in ["against  the time before", "states  ", "worse by", "SAX word  ", "query  builtin:x"] {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
    }

    #[test]
    fn witnesses_and_what_was_left_out_are_named() {
        let mut slow = case(1.6);
        for name in ["cart", "orders"] {
            let mut one = Neighbour::of(&slow, name, Relation::Unrelated).sharing("orders-db");
            one.case.metrics.clone_from(&slow.metrics);
            for series in slow.series.clone() {
                one = one.with_series(&series.metric, series.start, series.values);
            }
            slow.neighbours.push(one);
        }
        slow.left_out.push(LeftOut { window: [-50, -40], why: "version 1.0 failed".into() });
        let evidence = evidence::of_case(&slow, &JudgeSettings::default()).unwrap();
        let said = surroundings(&slow, &evidence);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], "  witness  cart: response_time worse by 60 % since minute 3");
        assert_eq!(said[2], " left out  minutes -50 to -40 of the references: version 1.0 failed");
        assert_eq!(surroundings(&case(1.6), &super::tests::evidence(1.6)), Vec::<String>::new());
    }

    #[test]
    fn a_case_of_a_file_is_found_by_its_id_plain_or_packed() {
        let folder = tempfile::tempdir().unwrap();
        let line =
            |id: &str| serde_json::Value::Object(Case { id: id.into(), ..case(1.0) }.to_json()).to_string();
        let text = format!("{}\n\n{}\n", line("a"), line("b"));
        let file = folder.path().join("cases.jsonl.gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        std::fs::write(&file, packed.finish().unwrap()).unwrap();
        let name = file.to_str().unwrap();
        assert_eq!(read(name, None).unwrap(), line("a"));
        assert_eq!(read(name, Some("b")).unwrap(), line("b"));
        assert!(read(name, Some("c")).unwrap_err().contains("no case `c`"));
        assert!(read("/nowhere.jsonl", None).unwrap_err().contains("cannot be read"));
        let empty = folder.path().join("empty.jsonl");
        std::fs::write(&empty, "\n").unwrap();
        assert!(read(empty.to_str().unwrap(), None).unwrap_err().contains("is empty"));
    }
}
