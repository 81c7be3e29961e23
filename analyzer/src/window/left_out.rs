//! Times that the references leave out, visibly: of versions that failed, and of problems that were known by then.

use crate::record::Record;
use vouch_proto::{LeftOut, Problem, Timestamp, Window};

/// What to leave out of the references of a verification, oldest first; only what they hold.
pub(super) fn left_out<'a>(record: &Record, problems: impl Iterator<Item = &'a Problem>) -> Vec<LeftOut> {
    let Some(verification) = record.verification else { return Vec::new() };
    let start = verification.start();
    let mut all: Vec<LeftOut> = record.left_out.iter().filter_map(|one| before(one, start)).collect();
    let known = problems.filter(|problem| problem.known_at <= start);
    let of_problems: Vec<LeftOut> = known.filter_map(|problem| of_problem(problem, start)).collect();
    // What lasts is the service as it is: without most of the last hours nothing would be left to compare with.
    let recent = record.baseline.iter().max_by_key(|window| window.end());
    if recent.is_some_and(|recent| 2 * covered(*recent, &of_problems) <= recent.minutes()) {
        all.extend(of_problems);
    }
    all.retain(|one| record.baseline.iter().any(|window| overlap(*window, one.window).is_some()));
    all.sort_by(|a, b| (a.window, &a.why).cmp(&(b.window, &b.why)));
    all.dedup();
    all
}

/// The part before an instant.
fn before(one: &LeftOut, start: Timestamp) -> Option<LeftOut> {
    let window = Window::new(one.window.start(), one.window.end().min(start)).ok()?;
    Some(LeftOut { window, why: one.why.clone() })
}

fn of_problem(problem: &Problem, start: Timestamp) -> Option<LeftOut> {
    let end = problem.ended_at.unwrap_or(start).min(start).ceil_minute();
    let window = Window::new(problem.started_at.floor_minute(), end).ok()?;
    let title = if problem.title.is_empty() { String::new() } else { format!(" ({})", problem.title) };
    Some(LeftOut { window, why: format!("problem {}{title}", problem.id) })
}

fn overlap(a: Window, b: Window) -> Option<Window> {
    Window::new(a.start().max(b.start()), a.end().min(b.end())).ok()
}

/// Minutes of a window that are left out, each counted once.
fn covered(window: Window, all: &[LeftOut]) -> i64 {
    let mut parts: Vec<Window> = all.iter().filter_map(|one| overlap(window, one.window)).collect();
    parts.sort_unstable();
    let (mut minutes, mut reached) = (0, window.start());
    for part in parts {
        if let Ok(more) = Window::new(part.start().max(reached), part.end()) {
            minutes += more.minutes();
            reached = more.end();
        }
    }
    minutes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, running};

    fn problem(id: &str, from: i64, to: Option<i64>, known_at: i64) -> Problem {
        Problem {
            id: id.into(),
            title: "slow".into(),
            root_cause: None,
            elsewhere: false,
            started_at: at(from),
            ended_at: to.map(at),
            known_at: at(known_at),
        }
    }

    fn told(record: &Record, problems: &[Problem]) -> Vec<String> {
        let start = record.verification.unwrap().start();
        let minute = |t: Timestamp| (t.as_millis() - start.as_millis()) / 60_000;
        left_out(record, problems.iter())
            .iter()
            .map(|one| format!("{} to {}: {}", minute(one.window.start()), minute(one.window.end()), one.why))
            .collect()
    }

    fn record_with(windows: &[(i64, i64)]) -> Record {
        let left_out = |(from, to): &(i64, i64)| LeftOut {
            window: Window::around(at(0), *from, *to).unwrap(),
            why: "2.0 failed".into(),
        };
        Record { left_out: windows.iter().map(left_out).collect(), ..running() }
    }

    #[test]
    fn only_what_the_references_hold_is_left_out_and_nothing_of_the_verification() {
        let record = record_with(&[(-60, -30), (-20, 9), (-4000, -3990), (3, 9)]);
        assert_eq!(told(&record, &[]), ["-60 to -30: 2.0 failed", "-20 to 0: 2.0 failed"]);
        assert_eq!(left_out(&Record { verification: None, ..record }, [].iter()), []);
    }

    #[test]
    fn problems_count_that_were_known_before() {
        let record = running();
        let problems = [
            problem("P-1", -50, Some(-40), -45),
            problem("P-2", -10, None, -5),
            problem("P-3", -30, None, 4),
            problem("P-4", 2, None, 3),
        ];
        assert_eq!(
            told(&record, &problems),
            ["-50 to -40: problem P-1 (slow)", "-10 to 0: problem P-2 (slow)"]
        );
    }

    #[test]
    fn what_lasts_for_most_of_the_references_is_no_exception() {
        let record = running();
        assert_eq!(told(&record, &[problem("P-1", -5000, None, -4000)]), Vec::<String>::new());
        let half = [problem("P-1", -80, None, -70), problem("P-2", -85, Some(-20), -70)];
        assert_eq!(told(&record, &half).len(), 2, "overlapping ones count once");
    }
}
