//! Numbers, times and names as a person reads them.
//!
//! Total: any number and any text has a form, be it not a number or absurd.

use crate::output::grouped_digits;

/// With a comma between each three digits; two decimals below 10, one below 100.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "?".to_owned();
    }
    if size >= ABSURD {
        return format!("{value:.1e}");
    }
    let decimals = match size {
        _ if value.fract() == 0.0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let digits = format!("{size:.decimals$}");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let (sign, whole) = (if value < 0.0 { "-" } else { "" }, grouped_digits(whole));
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// Three digits and a unit prefix at most: 250, 1.5 k, 430 k, 2 M.
pub(super) fn short(value: f64) -> String {
    scaled(value, 1000.0, &["", " k", " M", " G", " T"])
}

/// Of a number of bytes.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1000.0, &[" B", " kB", " MB", " GB", " TB"])
}

/// Of a number of microseconds.
pub(super) fn micros(value: f64) -> String {
    if value >= 1e6 {
        three_digits(value / 1e6) + " s"
    } else {
        scaled(value, 1e3, &[" µs", " ms"])
    }
}

/// Of a share of one.
pub(super) fn percent(share: f64) -> String {
    three_digits(share * 100.0) + " %"
}

/// What part of the whole lies below the quantile: 0.999 is 99.9 %.
pub(super) fn percentile(quantile: f64) -> String {
    let nines = -(1.0 - quantile).log10();
    let decimals =
        if nines.is_finite() { ((nines - 1e-6).ceil() - 2.0).clamp(0.0, 9.0) as usize } else { 0 };
    format!("{:.decimals$}", quantile * 100.0)
}

/// In UTC, to the minute.
pub(super) fn date(unix_secs: u64) -> String {
    let days = unix_secs / 86_400;
    if days > DAYS_MAX {
        return "?".to_owned();
    }
    let (mut year, mut day) = (1970, days);
    while day >= days_in(year) {
        day -= days_in(year);
        year += 1;
    }
    let february = days_in(year) - 337;
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute) = (unix_secs / 3600 % 24, unix_secs / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", day + 1)
}

/// The command as it can be pasted into a shell.
pub(super) fn command(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Lower-case letters, digits and single dashes: fit for a file name and a fragment of an address.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG_BYTES_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "unnamed".to_owned() } else { slug.to_owned() }
}

/// The text, or the beginning of it with an ellipsis.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let (mut value, mut at) = (value, 0);
    // What would be rounded up to the base belongs to the next unit.
    while value.abs() >= base * 0.9995 && at + 1 < units.len() {
        (value, at) = (value / base, at + 1);
    }
    match value.abs() {
        ..ABSURD => three_digits(value) + units[at],
        ABSURD..=f64::MAX => format!("{value:.0e}{}", units[at]),
        _ => "?".to_owned(),
    }
}

/// 0, 0.05, 1.25, 12.5, 125: no zeros at the end.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits,
    }
}

fn days_in(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

/// From here on digits say nothing; also keeps what is printed short.
const ABSURD: f64 = 1e15;

/// Until the year 9999 or so.
const DAYS_MAX: u64 = 2_932_896;

const SLUG_BYTES_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        for (value, text) in [
            (0.0, "0"),
            (3.456, "3.46"),
            (34.56, "34.6"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (1e300, "1.0e300"),
            (f64::NAN, "?"),
            (f64::INFINITY, "?"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn short_forms_have_a_unit() {
        assert_eq!(
            [0.0, 250.0, 1500.0, 430_000.0, 2e6].map(short),
            ["0", "250", "1.5 k", "430 k", "2 M"]
        );
        assert_eq!([999.9, 1e12, 1e200].map(short), ["1 k", "1 T", "1e188 T"]);
        assert_eq!([50.0, 1500.0, 2e6, 1.5e8].map(micros), ["50 µs", "1.5 ms", "2 s", "150 s"]);
        assert_eq!([512.0, 1500.0, 2e9].map(bytes), ["512 B", "1.5 kB", "2 GB"]);
        assert_eq!(short(f64::NAN), "?");
    }

    #[test]
    fn percentiles_show_their_nines() {
        let quantiles = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0];
        let texts = ["50", "90", "99", "99.9", "99.99", "99.999", "100"];
        assert_eq!(quantiles.map(percentile), texts);
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (unix_secs, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59 UTC"),
            (u64::MAX, "?"),
        ] {
            assert_eq!(date(unix_secs), text);
        }
    }

    #[test]
    fn commands_can_be_typed_again() {
        let arguments = ["loadgen", "run", "-t", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(command(&arguments), r"loadgen run -t 'a b' 'it'\''s' ''");
    }

    #[test]
    fn slugs_are_safe_file_names() {
        for (text, name) in [
            ("p2p QoS 1", "p2p-qos-1"),
            ("../../etc/passwd", "etc-passwd"),
            ("<é>", "unnamed"),
            ("", "unnamed"),
        ] {
            assert_eq!(slug(text), name);
        }
        assert!(slug(&"long ".repeat(100)).len() <= SLUG_BYTES_MAX);
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(shortened("mosquitto", 9), "mosquitto");
        assert_eq!(shortened("größerer Name", 5), "größ…");
    }
}
