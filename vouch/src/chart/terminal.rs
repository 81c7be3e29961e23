//! A chart of characters: the expected range shaded, what was there as dots, the evidence as bars below.

use super::Picture;
use std::fmt::Write as _;
use vouch_analyzer::reason::amount;

/// Rows of the chart.
const ROWS: usize = 9;
/// Width of the numbers at the left.
const MARGIN: usize = 9;
/// Narrowest and widest chart.
const WIDTHS: (usize, usize) = (24, 160);
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Columns of the terminal.
    pub(crate) width: usize,
    /// Whether colours may be used.
    pub(crate) colour: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Empty,
    Band,
    Expected,
    Before,
    Inside,
    Outside,
}

impl Cell {
    const fn symbol(self) -> char {
        match self {
            Self::Empty => ' ',
            Self::Band => '░',
            Self::Expected => '─',
            Self::Before => '·',
            Self::Inside | Self::Outside => '●',
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Band => "\x1b[34m",
            Self::Expected => "\x1b[36m",
            Self::Before => "\x1b[2m",
            Self::Outside => "\x1b[31m",
            Self::Empty | Self::Inside => "",
        }
    }
}

/// Draws a unit: title, chart, axis, evidence.
pub(crate) fn draw(picture: &Picture<'_>, style: Style) -> String {
    let width = columns(picture, style.width.saturating_sub(MARGIN + 2).clamp(WIDTHS.0, WIDTHS.1));
    let [low, high] = picture.values();
    let [first, last] = picture.minutes;
    let column = |minute: f64| place(minute, [first, last], width);
    let row = |value: f64| ROWS - 1 - place(value, [low, high], ROWS);
    let mut cells = vec![vec![Cell::Empty; width]; ROWS];
    for (minute, expected, band) in &picture.expected {
        let (top, bottom) = (row(band[1]), row(band[0]));
        cells[top..=bottom].iter_mut().for_each(|row| row[column(*minute)] = Cell::Band);
        cells[row(*expected)][column(*minute)] = Cell::Expected;
    }
    for (minute, value) in &picture.before {
        cells[row(*value)][column(*minute)] = Cell::Before;
    }
    for (minute, value) in &picture.observed {
        let known = picture.expected.iter().find(|(at, _, _)| at == minute);
        let outside = known.is_some_and(|(_, _, band)| *value < band[0] || *value > band[1]);
        cells[row(*value)][column(*minute)] = if outside { Cell::Outside } else { Cell::Inside };
    }
    let mut text = format!("{}\n", picture.title());
    for (i, line) in cells.iter().enumerate() {
        let value = high - (high - low) * i as f64 / (ROWS - 1) as f64;
        let label = if i % 4 == 0 { amount(value, "") } else { String::new() };
        writeln!(text, "{label:>MARGIN$} │{}", paint(line, style.colour)).ok();
    }
    text.push_str(&axis(picture, width));
    text.push_str(&bars(picture, width));
    text
}

/// As many columns as fit, so that each sample has as many as the others.
fn columns(picture: &Picture<'_>, most: usize) -> usize {
    let [first, last] = picture.minutes;
    let gaps = ((last - first) / picture.step).round().max(1.0) as usize;
    if gaps < most { (most - 1) / gaps * gaps + 1 } else { most }
}

/// Where a value lies in `slots` slots between two ends.
fn place(value: f64, [from, to]: [f64; 2], slots: usize) -> usize {
    let share = if to > from { (value - from) / (to - from) } else { 0.5 };
    let slot = (share.clamp(0.0, 1.0) * (slots - 1) as f64).round();
    (slot as usize).min(slots - 1)
}

fn paint(line: &[Cell], colour: bool) -> String {
    let mut text = String::new();
    for cell in line {
        let code = if colour { cell.colour() } else { "" };
        text.push_str(code);
        text.push(cell.symbol());
        if !code.is_empty() {
            text.push_str("\x1b[0m");
        }
    }
    text.trim_end().to_owned()
}

/// The line of minutes: the first, the deployment, where it got worse, the last.
fn axis(picture: &Picture<'_>, width: usize) -> String {
    let [first, last] = picture.minutes;
    let mut line = vec!['─'; width];
    let mut labels = vec![' '; width + 8];
    let mut mark = |minute: f64, symbol: char| {
        let at = place(minute, picture.minutes, width);
        line[at] = symbol;
        let label: Vec<char> = format!("{minute:.0}").chars().collect();
        let from = at.min(width.saturating_sub(label.len()));
        // One that would run into another is left out.
        let room = from.saturating_sub(1)..from + label.len() + 1;
        if labels[room].iter().all(|c| *c == ' ') {
            labels[from..from + label.len()].copy_from_slice(&label);
        }
    };
    mark(0.0, '┼');
    mark(last, '┤');
    mark(first, '├');
    if let Some(since) = picture.since {
        mark(since, '▲');
    }
    let (line, labels): (String, String) = (line.iter().collect(), labels.iter().collect());
    format!(
        "{:>MARGIN$} └{line}\n{:>MARGIN$}  {}  minutes from the deployment on\n",
        "",
        "",
        labels.trim_end()
    )
}

fn bars(picture: &Picture<'_>, width: usize) -> String {
    let needed = picture.unit.needed.max(0.1);
    let mut line = vec![' '; width];
    for (minute, nats) in &picture.evidence {
        let share = (nats / needed).clamp(0.0, 1.0);
        line[place(*minute, picture.minutes, width)] = BARS[(8.0 * share).floor() as usize];
    }
    let reached = picture.unit.ln_evidence();
    let line: String = line.iter().collect();
    format!(
        "{:>MARGIN$}  {}\n{:>MARGIN$}  {reached:.1} of {needed:.1} nats\n",
        "evidence",
        line.trim_end(),
        ""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::explain::tests::evidence;

    #[test]
    fn a_chart_fits_its_width_and_is_plain_without_colour() {
        let evidence = evidence(1.6);
        let picture = Picture::new(&evidence, &evidence.units[0]);
        for width in [40, 80, 120] {
            let text = draw(&picture, Style { width, colour: false });
            assert!(text.lines().all(|line| line.chars().count() <= width + 40), "{text}");
            assert!(!text.contains('\x1b') && text.contains('●') && text.contains('▲'), "{text}");
            assert!(text.contains("minutes from the deployment on") && text.contains("nats"), "{text}");
        }
        assert!(draw(&picture, Style { width: 80, colour: true }).contains("\x1b[31m"));
    }

    #[test]
    fn whatever_is_drawn_has_a_place() {
        assert_eq!(place(5.0, [5.0, 5.0], 9), 4);
        assert_eq!([place(-1.0, [0.0, 1.0], 9), place(7.0, [0.0, 1.0], 9)], [0, 8]);
        assert_eq!(place(f64::NAN, [0.0, 1.0], 9), 0);
    }
}
