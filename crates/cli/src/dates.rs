//! Dates as people type them: `2027-06-01`, or a number of days from now.

use std::time::Duration;

use protocol::time::Millis;

/// The farthest date that is taken; after it, nobody means it.
const LAST_YEAR: u64 = 9999;

/// The first moment of a day, in UTC: `2027-06-01`.
///
/// # Errors
///
/// What is not a day of the calendar, with the form that is wanted.
pub(crate) fn day(text: &str) -> Result<Millis, String> {
    let wrong = || format!("{text:?} is not a date; write it like 2027-06-01");
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, date] = parts.as_slice() else {
        return Err(wrong());
    };
    let number = |text: &str, digits: usize| -> Option<u64> {
        let right = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        right.then(|| text.parse().ok()).flatten()
    };
    let (Some(year), Some(month), Some(date)) =
        (number(year, 4), number(month, 2), number(date, 2))
    else {
        return Err(wrong());
    };
    if !(1970..=LAST_YEAR).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=days_of(year, month)).contains(&date)
    {
        return Err(wrong());
    }
    let years: u64 = (1970..year)
        .map(|year| if leap(year) { 366 } else { 365 })
        .sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Ok(Millis((years + months + date - 1) * 86_400_000))
}

/// A day, or so many days from now: `90`.
pub(crate) fn day_or_days(text: &str) -> Result<Millis, String> {
    if text.bytes().all(|b| b.is_ascii_digit())
        && let Ok(days @ 1..=36_500) = text.parse::<u64>()
    {
        return Ok(Millis::now().after(Duration::from_secs(days * 86_400)));
    }
    day(text).map_err(|_| {
        format!("{text:?} is neither a date like 2027-06-01 nor a number of days up to 36500")
    })
}

/// `2027-06-01`.
pub(crate) fn shown(at: Millis) -> String {
    at.rfc3339()
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_shown_and_only_days_of_the_calendar() {
        for text in [
            "1970-01-01",
            "2000-02-29",
            "2026-11-26",
            "2027-06-01",
            "9999-12-31",
        ] {
            assert_eq!(shown(day(text).unwrap()), text);
        }
        for bad in [
            "",
            "2027",
            "2027-6-1",
            "2027-13-01",
            "2027-02-29",
            "2100-02-29",
            "2027-00-01",
            "2027-01-00",
            "1969-12-31",
            "10000-01-01",
            "2027-06-01T00:00",
            "+027-06-01",
            "90",
        ] {
            assert!(day(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_number_is_so_many_days_from_now() {
        let ninety = day_or_days("90").unwrap().since(Millis::now());
        assert!(
            ninety > Duration::from_secs(89 * 86_400) && ninety <= Duration::from_secs(90 * 86_400)
        );
        assert_eq!(day_or_days("2027-06-01"), day("2027-06-01"));
        for bad in ["0", "-1", "36501", "soon", ""] {
            assert!(day_or_days(bad).is_err(), "{bad:?}");
        }
    }
}
