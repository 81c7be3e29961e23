//! `vouch init`: a settings file from what a tenant has.

use super::services::table;
use super::tenant::Choice;
use crate::exit::{self, Code};
use crate::output;
use clap::Args;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use vouch_collector::propose::propose;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    tenant: Choice,
    /// File to write; one that is there is kept, unless --force.
    #[arg(long, value_name = "FILE", default_value = "vouch.yaml")]
    file: PathBuf,
    /// Overwrite the file.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Code {
    let (Some(url), Some(token_file)) = (&arguments.tenant.url, &arguments.tenant.token_file) else {
        output::error("name the tenant: --url and --token-file");
        return exit::USAGE;
    };
    if arguments.file.exists() && !arguments.force {
        output::error(&format!(
            "{} is there already; name another --file, or --force",
            arguments.file.display()
        ));
        return exit::USAGE;
    }
    let source = match arguments.tenant.open() {
        Ok((_, source)) => source,
        Err(code) => return code,
    };
    let services = match source.described_services().await {
        Ok(services) => services,
        Err(failure) => {
            output::error(&failure.to_string());
            return exit::ERROR;
        }
    };
    // A service that is started elsewhere finds the token under its whole path.
    let token_file = std::fs::canonicalize(token_file).unwrap_or_else(|_| token_file.clone());
    let proposal = propose(url.trim(), &token_file.display().to_string(), &services);
    if let Err(e) = write(&arguments.file, &proposal.settings, arguments.force) {
        output::error(&format!("{} cannot be written: {e}", arguments.file.display()));
        return exit::ERROR;
    }
    output::line(&table(&proposal.matching));
    let file = arguments.file.display();
    output::line(&format!("\n{file} written. Next: vouch check --settings {file} --connect"));
    exit::OK
}

fn write(file: &Path, text: &str, force: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = options.open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all().or_else(|e| if e.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(e) })
}
