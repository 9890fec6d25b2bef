//! Times that people type, in their own time zone.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::names::{BadName, parse_duration};

/// A time as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So long ago: `-5min`, `now`.
    Ago(Duration),
    /// The last time that a clock showed this: `10:00`, `10:00:05`.
    Clock(Time),
    /// A day and a time: `2026-11-21 10:00`; a day alone is its midnight.
    At(DateTime),
    /// A day's midnight, counted back from today: `today`, `yesterday`.
    Day(i8),
}

impl FromStr for When {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        let shape =
            || BadName("must be a time such as 10:00, '2026-11-21 10:00:05', -5min or yesterday".into());
        match text {
            "now" => return Ok(Self::Ago(Duration::ZERO)),
            "today" => return Ok(Self::Day(0)),
            "yesterday" => return Ok(Self::Day(-1)),
            _ => {}
        }
        if let Some(span) = text.strip_prefix('-') {
            return ago(span).map(Self::Ago).ok_or_else(shape);
        }
        let (date, time) = match text.split_once([' ', 'T']) {
            Some((date, time)) => (Some(date), Some(time.trim_start())),
            None if text.contains(':') => (None, Some(text)),
            None => (Some(text), None),
        };
        let date = date.map(|date| day(date).ok_or_else(shape)).transpose()?;
        let time = time.map(|time| clock(time).ok_or_else(shape)).transpose()?;
        match (date, time) {
            (Some(date), time) => Ok(Self::At(date.to_datetime(time.unwrap_or(Time::midnight())))),
            (None, Some(time)) => Ok(Self::Clock(time)),
            (None, None) => Err(shape()),
        }
    }
}

/// `5min`, and also whole days, which no other time here needs.
fn ago(span: &str) -> Option<Duration> {
    let days = span.strip_suffix('d').filter(|days| days.bytes().all(|b| b.is_ascii_digit()));
    match days {
        Some(days) => days.parse::<u64>().ok()?.checked_mul(86_400).map(Duration::from_secs),
        None => parse_duration(span).ok(),
    }
}

/// Numbers of exactly so many digits, with this between them.
fn numbers(text: &str, between: char, digits: &[usize]) -> Option<Vec<i16>> {
    let parts: Vec<&str> = text.split(between).collect();
    let right =
        |(part, digits): (&&str, &usize)| part.len() == *digits && part.bytes().all(|b| b.is_ascii_digit());
    let fits = parts.len() == digits.len() && parts.iter().zip(digits).all(right);
    if !fits {
        return None;
    }
    parts.iter().map(|part| part.parse().ok()).collect()
}

fn day(text: &str) -> Option<Date> {
    let parts = numbers(text, '-', &[4, 2, 2])?;
    Date::new(parts[0], i8::try_from(parts[1]).ok()?, i8::try_from(parts[2]).ok()?).ok()
}

fn clock(text: &str) -> Option<Time> {
    let seconds = [2, 2, 2];
    let parts = numbers(text, ':', &seconds[..text.split(':').count().clamp(2, 3)])?;
    let part = |index: usize| i8::try_from(parts.get(index).copied().unwrap_or(0)).ok();
    Time::new(part(0)?, part(1)?, part(2)?, 0).ok()
}

/// Since when and until when, in seconds since 1970. A time of day is the last one that has been; as an end it is the first
/// after the beginning, if there is one. An hour that a clock shows twice counts whole.
pub fn window(
    since: Option<When>,
    until: Option<When>,
    now: &Zoned,
) -> Result<(Option<u64>, Option<u64>), BadName> {
    let zone = now.time_zone();
    let since = since.map(|since| resolve(since, now)).transpose()?;
    let until = match (until, since) {
        (Some(When::Clock(time)), Some(since)) => Some(next(time, since, zone)?),
        (Some(until), _) => Some(resolve(until, now)?),
        (None, _) => None,
    };
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(BadName("ends before it begins".to_owned()));
    }
    let seconds = |time: Timestamp| u64::try_from(time.as_second()).unwrap_or(0);
    Ok((since.map(seconds), until.map(seconds)))
}

/// Local time, as a `Zoned` for [`window`].
pub fn now() -> Zoned {
    Zoned::now()
}

/// A moment as the local clock shows it: `2026-11-21 10:00:05`.
pub fn local(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(
        || "at an unknown time".to_owned(),
        |stamp| stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// A span as a person says it, in its largest unit.
pub fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

fn far(_: jiff::Error) -> BadName {
    BadName("is too far away".to_owned())
}

fn resolve(when: When, now: &Zoned) -> Result<Timestamp, BadName> {
    let zone = now.time_zone();
    match when {
        When::Ago(span) => now.timestamp().checked_sub(span).map_err(far),
        When::At(time) => zone.to_timestamp(time).map_err(far),
        When::Day(back) => {
            let day = now.date().checked_add(jiff::Span::new().days(back)).map_err(far)?;
            zone.to_timestamp(day.to_datetime(Time::midnight())).map_err(far)
        }
        When::Clock(time) => {
            let today = zone.to_timestamp(now.date().to_datetime(time)).map_err(far)?;
            if today <= now.timestamp() {
                return Ok(today);
            }
            let yesterday = now.date().yesterday().map_err(far)?;
            zone.to_timestamp(yesterday.to_datetime(time)).map_err(far)
        }
    }
}

fn next(time: Time, since: Timestamp, zone: &TimeZone) -> Result<Timestamp, BadName> {
    let day = since.to_zoned(zone.clone()).date();
    let that_day = zone.to_ambiguous_timestamp(day.to_datetime(time)).later().map_err(far)?;
    if that_day >= since {
        return Ok(that_day);
    }
    let tomorrow = day.tomorrow().map_err(far)?;
    zone.to_ambiguous_timestamp(tomorrow.to_datetime(time)).later().map_err(far)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Noon of a November Saturday, an hour east of Greenwich.
    fn noon() -> Zoned {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        jiff::civil::date(2026, 11, 21).at(12, 0, 0, 0).to_zoned(zone).unwrap()
    }

    fn local_window(since: &str, until: &str) -> (Option<String>, Option<String>) {
        let read = |text: &str| (!text.is_empty()).then(|| text.parse::<When>().unwrap());
        let (since, until) = window(read(since), read(until), &noon()).unwrap();
        let shown = |s: u64| {
            let stamp = Timestamp::from_second(s.cast_signed()).unwrap();
            stamp.to_zoned(noon().time_zone().clone()).strftime("%d %H:%M:%S").to_string()
        };
        (since.map(shown), until.map(shown))
    }

    fn since(text: &str) -> String {
        local_window(text, "").0.unwrap()
    }

    #[test]
    fn a_time_is_read_as_people_write_it() {
        assert_eq!(since("10:00"), "21 10:00:00");
        assert_eq!(since("10:00:05"), "21 10:00:05");
        assert_eq!(since("2026-11-20 10:00"), "20 10:00:00");
        assert_eq!(since("2026-11-20T10:00:05"), "20 10:00:05");
        assert_eq!(since("2026-11-19"), "19 00:00:00");
        assert_eq!(since("-5min"), "21 11:55:00");
        assert_eq!(since("-2d"), "19 12:00:00");
        assert_eq!(since("now"), "21 12:00:00");
        assert_eq!(since("yesterday"), "20 00:00:00");
        for bad in ["", "10", "1:00", "24:00", "10:61", "2026-13-01", "-", "-5 weeks", "10:00:00:00"] {
            assert!(bad.parse::<When>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_of_day_is_the_last_one_and_an_end_comes_after_its_beginning() {
        assert_eq!(since("23:50"), "20 23:50:00");
        let window = |since, until| {
            let (since, until) = local_window(since, until);
            (since.unwrap(), until.unwrap())
        };
        assert_eq!(window("10:00", "14:00"), ("21 10:00:00".into(), "21 14:00:00".into()));
        assert_eq!(window("23:50", "00:10"), ("20 23:50:00".into(), "21 00:10:00".into()));
        assert_eq!(local_window("", "14:00"), (None, Some("20 14:00:00".into())));
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_refused() {
        let read = |text: &str| text.parse().ok();
        assert!(window(read("-5min"), read("-10min"), &noon()).is_err());
    }

    #[test]
    fn an_hour_that_the_clock_shows_twice_counts_whole() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let now = jiff::civil::date(2026, 10, 25).at(12, 0, 0, 0).to_zoned(zone).unwrap();
        let read = |text: &str| text.parse().ok();
        let (since, until) = window(read("02:15"), read("02:45"), &now).unwrap();
        assert_eq!(until.unwrap() - since.unwrap(), 5400);
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_refused(text in "\\PC{0,24}") {
            if let Ok(when) = text.parse::<When>() {
                let _ = window(Some(when), Some(when), &noon());
            }
        }

        #[test]
        fn whatever_looks_like_a_time_is_one_or_refused(text in "-?[0-9]{0,4}[-: T]?[0-9]{0,22}[:d]?[0-9]{0,2}(min|h)?") {
            if let Ok(when) = text.parse::<When>() {
                let _ = window(Some(when), None, &noon());
            }
        }

        #[test]
        fn any_moment_is_shown(ms in any::<u64>()) {
            let _ = (local(ms), span(ms));
        }
    }
}
