//! A picture for a report: the sentence, the values with the expected range, the evidence with its threshold.

use super::Picture;
use anyhow::Context as _;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;
use vouch_analyzer::reason::amount;

const SIZE: (u32, u32) = (960, 620);
const BAND: RGBColor = RGBColor(0xc6, 0xdb, 0xef);
const EXPECTED: RGBColor = RGBColor(0x21, 0x71, 0xb5);
const BEFORE: RGBColor = RGBColor(0x96, 0x96, 0x96);
const OBSERVED: RGBColor = RGBColor(0x25, 0x25, 0x25);
const WORSE: RGBColor = RGBColor(0xcb, 0x18, 0x1d);
const SHADE: RGBColor = RGBColor(0xfe, 0xe0, 0xd2);
const TEXT: RGBColor = RGBColor(0x33, 0x33, 0x33);
/// Letters of a line of the sentence.
const LINE: usize = 118;
const FONT: &str = "sans-serif";

/// Writes the picture of a unit, under the sentence of the case.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write(file: &Path, sentence: &str, picture: &Picture<'_>) -> anyhow::Result<()> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&root, sentence, picture).map_err(|e| anyhow::anyhow!("the picture cannot be drawn: {e}"))?;
    }
    std::fs::write(file, text).with_context(|| format!("--svg: {} cannot be written", file.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, sentence: &str, picture: &Picture<'_>) -> Drawn {
    root.fill(&WHITE)?;
    let lines = wrap(sentence, LINE);
    let bold = (FONT, 17).into_font().style(FontStyle::Bold).color(&TEXT);
    for (i, line) in (0_i32..).zip(lines.iter().take(3)) {
        root.draw_text(line, &bold, (24, 16 + 22 * i))?;
    }
    let top = 24 + 22 * i32::try_from(lines.len().min(3)).unwrap_or(3);
    let (_, rest) = root.split_vertically(top);
    let (values, evidence) = rest.split_vertically((i32::try_from(SIZE.1).unwrap_or(620) - top) * 64 / 100);
    draw_values(&values, picture)?;
    draw_evidence(&evidence, picture)?;
    root.present()?;
    Ok(())
}

fn draw_values(area: &Area<'_>, picture: &Picture<'_>) -> Drawn {
    let ([first, last], [low, high]) = (picture.minutes, picture.values());
    let caption = format!("{}, against {}", picture.title(), picture.unit.against);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 15).into_font().color(&TEXT))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(76)
        .build_cartesian_2d(first..last, low..high)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.08))
        .y_label_formatter(&|value| {
            amount(*value, if picture.unit.is_share { "%" } else { picture.unit_name })
        })
        .x_label_formatter(&|minute| format!("{minute:.0} min"))
        .label_style((FONT, 13).into_font().color(&TEXT))
        .draw()?;
    if let Some(since) = picture.since {
        chart.draw_series([Rectangle::new([(since, low), (last, high)], SHADE.filled())])?;
    }
    let upper = picture.expected.iter().map(|(minute, _, band)| (*minute, band[1].min(high)));
    let lower = picture.expected.iter().rev().map(|(minute, _, band)| (*minute, band[0].max(low)));
    let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
    chart
        .draw_series([Polygon::new(outline, BAND.mix(0.8).filled())])?
        .label("where 95 % of the samples would be without the deployment")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], BAND.filled()));
    chart
        .draw_series(LineSeries::new(
            picture.expected.iter().map(|(minute, expected, _)| (*minute, *expected)),
            EXPECTED.stroke_width(2),
        ))?
        .label("expected")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], EXPECTED.stroke_width(2)));
    chart
        .draw_series(picture.before.iter().map(|point| Circle::new(*point, 2, BEFORE.filled())))?
        .label("measured before the deployment")
        .legend(|(x, y)| Circle::new((x + 9, y), 2, BEFORE.filled()));
    chart.draw_series(LineSeries::new(picture.observed.iter().copied(), OBSERVED.mix(0.4)))?;
    chart
        .draw_series(picture.observed.iter().map(|point| Circle::new(*point, 3, OBSERVED.filled())))?
        .label("measured since")
        .legend(|(x, y)| Circle::new((x + 9, y), 3, OBSERVED.filled()));
    chart.draw_series([PathElement::new([(0.0, low), (0.0, high)], OBSERVED.stroke_width(1))])?;
    let said = (FONT, 13).into_font().color(&TEXT).pos(Pos::new(HPos::Right, VPos::Top));
    chart.draw_series([Text::new("deployment ", (0.0, high), said)])?;
    if let Some(since) = picture.since {
        // Left of it where there is no room to the right.
        let side = if since > first + 0.8 * (last - first) { HPos::Right } else { HPos::Left };
        let said = (FONT, 13).into_font().color(&WORSE).pos(Pos::new(side, VPos::Bottom));
        chart.draw_series([Text::new(format!(" worse since minute {since:.0} "), (since, low), said)])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 13).into_font().color(&TEXT))
        .draw()?;
    Ok(())
}

fn draw_evidence(area: &Area<'_>, picture: &Picture<'_>) -> Drawn {
    let [first, last] = picture.minutes;
    let needed = picture.unit.needed;
    let highest = picture.evidence.iter().map(|(_, nats)| *nats).fold(needed, f64::max);
    let lowest = picture.evidence.iter().map(|(_, nats)| *nats).fold(0.0, f64::min);
    let air = 0.1 * (highest - lowest).max(1.0);
    let mut chart = ChartBuilder::on(area)
        .caption("evidence that it got worse", (FONT, 15).into_font().color(&TEXT))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(76)
        .build_cartesian_2d(first..last, (lowest - air)..(highest + air))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.08))
        .y_labels(5)
        .y_label_formatter(&|nats| format!("{nats:.0} nats"))
        .x_label_formatter(&|minute| format!("{minute:.0} min"))
        .label_style((FONT, 13).into_font().color(&TEXT))
        .draw()?;
    chart.draw_series(LineSeries::new(picture.evidence.iter().copied(), OBSERVED.stroke_width(2)))?;
    chart.draw_series([PathElement::new([(first, needed), (last, needed)], WORSE.stroke_width(2))])?;
    let said = (FONT, 13).into_font().color(&WORSE).pos(Pos::new(HPos::Left, VPos::Bottom));
    let words = format!("  enough for this metric alone to fail: {needed:.1}");
    chart.draw_series([Text::new(words, (first, needed), said)])?;
    Ok(())
}

/// Cuts a sentence into lines at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::explain::tests::evidence;

    #[test]
    fn a_picture_says_what_it_shows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.svg");
        for ratio in [1.0, 1.6] {
            let evidence = evidence(ratio);
            for unit in &evidence.units {
                let picture = Picture::new(&evidence, unit);
                write(&file, &evidence.judgement.reason, &picture).unwrap();
                let svg = std::fs::read_to_string(&file).unwrap();
                for word in ["deployment", "expected", "measured since", "evidence that it got worse", "nats"]
                {
                    assert!(svg.contains(word), "{word} is missing in {svg}");
                }
            }
        }
    }

    #[test]
    fn a_picture_that_cannot_be_written_says_which() {
        let evidence = evidence(1.6);
        let picture = Picture::new(&evidence, &evidence.units[0]);
        let said = write(Path::new("/nowhere/a.svg"), "x", &picture).unwrap_err().to_string();
        assert!(said.contains("--svg: /nowhere/a.svg"), "{said}");
    }

    #[test]
    fn a_long_sentence_is_cut_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert!(wrap("", 7).is_empty());
    }
}
