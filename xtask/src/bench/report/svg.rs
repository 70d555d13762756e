//! The picture: for every group, one bar a subject, requests a second relative to the direct path, with the spread as a
//! whisker. Text takes the colour of the page, so that it can be read on a dark one.

use std::fmt::Write;

use super::times;
use crate::bench::cell::Subject;
use crate::bench::summary::{Group, RPS, Spread};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const FIGURES: f64 = 190.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEADING: f64 = 40.0;

/// The whole picture.
pub(super) fn picture(groups: &[Group<'_>]) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for group in groups {
        y = draw(&mut body, group, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #24292f }} line {{ stroke: #24292f }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} line {{ stroke: #e6edf3 }} }}</style>\n\
         {body}</svg>\n",
        height = y + 10.0
    )
}

/// Draws one group below `top` and returns where it ends.
fn draw(body: &mut String, group: &Group<'_>, top: f64) -> f64 {
    let bars: Vec<_> = group
        .subjects()
        .filter_map(|subject| Some((subject, group.to_direct(subject, RPS)?, group.figure(subject, RPS)?)))
        .collect();
    let widest = bars.iter().map(|(_, ratio, _)| ratio.high).fold(1.0, f64::max);
    let scale = (WIDTH - LABELS - FIGURES) / widest;
    let mut y = top + HEADING;
    let _ = writeln!(
        body,
        "<text x=\"0\" y=\"{}\" font-weight=\"600\">{}: requests a second, direct = 1</text>",
        y - 14.0,
        group.heading()
    );
    for (subject, ratio, rps) in bars {
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{subject}</text>",
            LABELS - 8.0,
            middle + 4.0
        );
        let _ = writeln!(
            body,
            "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>",
            ratio.median * scale,
            colour(subject)
        );
        whisker(body, ratio, scale, middle);
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{}\">{} · {:.0}/s</text>",
            LABELS + ratio.high * scale + 8.0,
            middle + 4.0,
            times(ratio),
            rps.median
        );
        y += STEP;
    }
    y
}

fn whisker(body: &mut String, ratio: Spread, scale: f64, y: f64) {
    let (low, high) = (LABELS + ratio.low * scale, LABELS + ratio.high * scale);
    let _ = writeln!(body, "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y}\" y2=\"{y}\"/>");
    for x in [low, high] {
        let _ = writeln!(body, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>", y - 4.0, y + 4.0);
    }
}

fn colour(subject: Subject) -> &'static str {
    match subject {
        Subject::OrlopKernel | Subject::OrlopKernel10k | Subject::OrlopL7 => "#d9730d",
        Subject::Direct | Subject::DirectAgain => "#8b949e",
        Subject::Nginx | Subject::Haproxy | Subject::EnvoyPair => "#4c8ed9",
    }
}
