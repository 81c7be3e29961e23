//! Judges a file of verification cases: `cargo run --profile ci --example judge -- FILE.jsonl[.gz] > verdicts.jsonl`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Error, stdout};
use vouch_analyzer::{judge::JudgeSettings, offline};

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).ok_or_else(|| Error::other("give the file of cases"))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = std::time::Instant::now();
    let reader = BufReader::new(File::open(path)?);
    let summary = offline::run(reader, BufWriter::new(stdout().lock()), &JudgeSettings::default(), threads)?;
    eprintln!("{} cases, {} malformed, {:.2?}", summary.cases, summary.malformed, started.elapsed());
    Ok(())
}
