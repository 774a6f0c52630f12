use std::time::Duration;

/// Nanoseconds of each unit, as Go spells them, both spellings of micro; and at the end those that flags have besides.
const UNITS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 24 * 3_600_000_000_000),
    ("w", 7 * 24 * 3_600_000_000_000),
];
/// How many of them a file may use.
const UNITS_OF_FILES: usize = 8;
/// Go counts nanoseconds in 63 bits: about 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// Reads a duration in Go's form: numbers, each with a unit (`ns`, `us`, `ms`, `s`, `m`, `h`), such as `1h30m` or `1.5h`; or `0` (surface §B.1).
///
/// # Errors
/// What is wrong and how to mend it. Negative durations are refused: nothing here has one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &UNITS[..UNITS_OF_FILES])
}

/// As [`parse_duration`], also with days and weeks, `1d` and `1w`: flags take them since Teleport 13.
///
/// # Errors
/// As [`parse_duration`].
pub fn parse_flag_duration(text: &str) -> Result<Duration, String> {
    parse(text, &UNITS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<Duration, String> {
    let form = || format!("`{text}` is no duration: write numbers with units, such as `1h`, `20m` or `1h30m`");
    if text.starts_with('-') && text.len() > 1 {
        return Err(format!("`{text}` is negative: write a duration such as `20m`"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(form());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if tail.is_empty() {
            return Err(format!("`{text}` lacks a unit: write `{text}s`, `{text}m` or `{text}h`"));
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = units.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let part = nanoseconds(number, *scale).ok_or_else(form)?;
        total = total.saturating_add(part);
        if total > LONGEST {
            return Err(format!("`{text}` is too long: at most 292 years"));
        }
        rest = tail;
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| form())
}

/// Prints a duration in Go's form: `1h0m0s`, `20m0s`, `1.5s`, `300ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => return format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {}
    }
    let minutes = duration.as_secs() / 60;
    let seconds = decimal(nanos - u128::from(minutes) * 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `number` (digits with at most one point) times `scale`, rounded down.
fn nanoseconds(number: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let scale = u128::from(scale);
    // More digits than a u64 has cannot be in range; 18 behind the point are below a nanosecond in every unit.
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = u32::try_from(fraction.len()).ok()?;
    let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(u128::from(whole) * scale + parts * scale / 10_u128.pow(digits))
}

/// `value / unit` with its decimals, without trailing zeros.
fn decimal(value: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_and_prints_as_go_does() {
        for (text, nanos, printed) in [
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("20m", 1_200_000_000_000, "20m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("300ms", 300_000_000, "300ms"),
            ("1500ms", 1_500_000_000, "1.5s"),
            ("10us", 10_000, "10µs"),
            ("1.5µs", 1_500, "1.5µs"),
            ("2μs", 2_000, "2µs"),
            ("7ns", 7, "7ns"),
            (".5s", 500_000_000, "500ms"),
            ("+1.s", 1_000_000_000, "1s"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1h0m0.000000001s", 3_600_000_000_001, "1h0m0.000000001s"),
            ("100h", 360_000_000_000_000, "100h0m0s"),
        ] {
            let duration = parse_duration(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(duration, Duration::from_nanos(nanos), "{text}");
            assert_eq!(format_duration(duration), printed, "{text}");
            assert_eq!(parse_duration(printed), Ok(duration), "{printed}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_and_negative_durations() {
        for text in ["", "60", "1", "h", "1x", "1h 30m", "1..5s", ".s", ".", "+", "-", "-1h", "1d", "9999999h", "1h-1m"]
        {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        let many = "9".repeat(40);
        assert!(parse_duration(&format!("{many}h")).is_err_and(|e| e.contains("too long")));
        assert!(parse_duration("60").is_err_and(|e| e.contains("`60m`")));
    }

    #[test]
    fn flags_know_days_and_weeks() {
        for (text, printed) in
            [("1d", "24h0m0s"), ("1w", "168h0m0s"), ("1.5d", "36h0m0s"), ("2d1m", "48h1m0s"), ("1h", "1h0m0s")]
        {
            assert_eq!(parse_flag_duration(text).map(format_duration).as_deref(), Ok(printed));
        }
        assert!(parse_flag_duration("1y").is_err());
    }
}
