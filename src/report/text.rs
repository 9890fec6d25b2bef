//! Tables for people: plain text, good without colour, and narrow enough for eighty columns where the names are.

use crate::apply::Outcome;
use crate::names::Bytes;
use crate::plan::Plan;
use crate::report::sentences::{self, Detail};
use crate::report::status::Status;

/// The status table, and what there is to say about its guests.
pub fn status(status: &Status, detail: Detail) -> String {
    let head = ["GUEST", "ROLE", "STATE", "BACKEND", "ADDRESS", "UP", "MEMORY", "CPU"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for guest in &status.guests {
        rows.push(vec![
            guest.name.to_string(),
            guest.role.clone(),
            sentences::state(guest).to_owned(),
            guest.backend.clone(),
            guest.address.to_string(),
            guest.uptime_ms.map(span).unwrap_or_default(),
            guest.memory_bytes.map(|bytes| Bytes(bytes).to_string()).unwrap_or_default(),
            guest.cpu_ms.map(|ms| format!("{:.1}s", ms as f64 / 1000.0)).unwrap_or_default(),
        ]);
    }
    let mut text = table(&rows);
    for guest in status.guests.iter().filter(|guest| !guest.limits.is_empty()) {
        text.push_str(&format!("limits of {}: {}\n", guest.name, guest.limits));
        for ignored in &guest.limits_ignored {
            text.push_str(&format!("  {} does not hold: {}\n", ignored.limit, ignored.why));
        }
    }
    // For those who ask about one guest; it would drown everything else.
    for guest in status.guests.iter().filter(|_| detail == Detail::Full) {
        if let Some(compiled) = &guest.profile {
            let (name, generation) = (&compiled.profile, compiled.generation);
            text.push_str(&format!("profile of {}: {name}, generation {generation}\n", guest.name));
        }
        for line in sentences::profile(guest) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    let sentences: Vec<String> =
        status.guests.iter().filter_map(|guest| sentences::sentence(guest, detail)).collect();
    if !sentences.is_empty() {
        text.push('\n');
        text.push_str(&sentences.concat());
    }
    text
}

/// Milliseconds, as short as people say it.
fn span(ms: u64) -> String {
    match ms / 1000 {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m{:02}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        s => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a plan would do, one line a step.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for (number, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("{:3}. {}\n", number + 1, step.action));
    }
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// What went wrong, what was walked back, and what is left.
pub fn failure(plan: &Plan, outcome: &Outcome) -> String {
    let name = |step: usize| plan.steps.get(step).map(|step| step.action.to_string()).unwrap_or_default();
    let mut text = String::new();
    for (step, error) in &outcome.failed {
        text.push_str(&format!("failed: {}: {error:#}\n", name(*step)));
    }
    for (step, error) in &outcome.left {
        text.push_str(&format!("could not be undone: {}: {error:#}\n", name(*step)));
    }
    if outcome.all_undone() {
        text.push_str("nothing was changed, or all was undone\n");
        return text;
    }
    let kept: Vec<usize> =
        outcome.done.iter().copied().filter(|step| !outcome.undone.contains(step)).collect();
    if !kept.is_empty() {
        text.push_str("done and kept:\n");
        for step in kept {
            text.push_str(&format!("  {}\n", name(step)));
        }
    }
    text.push_str(
        "hint: when the cause is mended, the same command goes on from here; gridgate down takes all down\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["A", "B"]), row(["longer", ""])]), "A       B\nlonger\n");
    }

    #[test]
    fn a_time_span_is_said_in_its_two_largest_units() {
        assert_eq!(span(59_999), "59s");
        assert_eq!(span(61_000), "1m01s");
        assert_eq!(span(3_600_000), "1h00m");
        assert_eq!(span(90_000_000), "1d01h");
    }
}
