//! `vouch judge`: judges cases from a file offline.

use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write as _, stdin, stdout};
use std::num::NonZero;
use std::path::PathBuf;
use vouch_analyzer::judge::JudgeSettings;
use vouch_analyzer::offline;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File of cases, one JSON object a line, plain or gzip; `-` for standard input.
    file: PathBuf,
    /// Threads; all cores where it is not given.
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

pub(crate) fn run(arguments: &Arguments) -> Code {
    let threads =
        arguments.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let name = arguments.file.display();
    let mut writer = BufWriter::new(stdout());
    let settings = JudgeSettings::default();
    let judged = if arguments.file.as_os_str() == "-" {
        offline::run(BufReader::new(stdin()), &mut writer, &settings, threads)
    } else {
        match File::open(&arguments.file) {
            Ok(file) => offline::run(BufReader::new(file), &mut writer, &settings, threads),
            Err(e) => {
                output::error(&format!("{name} cannot be read: {e}"));
                return exit::NO_INPUT;
            }
        }
    };
    match judged.and_then(|summary| writer.flush().map(|()| summary)) {
        Ok(summary) if summary.malformed == 0 => exit::OK,
        Ok(summary) => {
            output::error(&format!(
                "{} of {} lines of {name} were malformed; their `reason` says why",
                summary.malformed, summary.cases
            ));
            exit::MALFORMED
        }
        // Whoever reads has seen enough, e.g. `head`.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => exit::OK,
        Err(e) => {
            output::error(&format!("{name} cannot be read: {e}"));
            exit::NO_INPUT
        }
    }
}
