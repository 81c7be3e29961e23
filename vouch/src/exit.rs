//! Exit codes, in one place.

use std::process::ExitCode;
use vouch_proto::Outcome;

/// An exit code of `vouch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(u8);

/// Done; for `verify`, Pass.
pub(crate) const OK: Code = Code(0);
/// `verify`: Fail.
pub(crate) const FAIL: Code = Code(1);
/// `verify`: Inconclusive.
pub(crate) const INCONCLUSIVE: Code = Code(2);
/// `verify`: Error, or Vouch itself could not be asked.
pub(crate) const ERROR: Code = Code(3);
/// `judge`: some lines were malformed.
pub(crate) const MALFORMED: Code = Code(4);
/// `query`, `logs`: the source has answered, and what it answered must not be used, or is not all.
pub(crate) const REFUSED: Code = Code(5);
/// Wrong arguments or settings.
pub(crate) const USAGE: Code = Code(vouch_service::run::EXIT_USAGE);
/// An input file cannot be read.
pub(crate) const NO_INPUT: Code = Code(66);
/// Interrupted.
pub(crate) const INTERRUPTED: Code = Code(130);

/// The table at the end of `--help`; docs/exit-codes.md says more.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done; verify, watch: Pass
    1  verify, watch: Fail
    2  verify, watch: Inconclusive (measured, cannot tell)
    3  verify, watch: Error (could not measure); other commands: failed
    4  judge, explain: what was read is malformed
    5  query: a series is refused; logs: lines are missing; `refused` says why
   64  wrong arguments or settings
   66  judge, explain: the file cannot be read
  130  interrupted (a verification goes on unless --cancel-on-interrupt)";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// The code of an outcome.
pub(crate) const fn of(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Pass => OK,
        Outcome::Fail => FAIL,
        Outcome::Inconclusive => INCONCLUSIVE,
        Outcome::Error => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pass_is_zero() {
        for outcome in Outcome::ALL {
            assert_eq!(of(*outcome) == OK, *outcome == Outcome::Pass);
        }
    }

    #[test]
    fn the_table_names_every_code() {
        for code in [OK, FAIL, INCONCLUSIVE, ERROR, MALFORMED, REFUSED, USAGE, NO_INPUT, INTERRUPTED] {
            let number = format!("{:>5}  ", code.0);
            assert!(TABLE.lines().any(|line| line.starts_with(&number)), "{number}");
        }
    }
}
