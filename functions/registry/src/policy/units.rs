//! Durations and sizes, as documents have them: `10m`, `20GiB`.

/// The longest duration, in milliseconds: ten years.
const MAX_DURATION_MS: u64 = 3650 * 86_400_000;

const DURATIONS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The milliseconds of a duration: a whole number and `s`, `m`, `h` or `d`; at most ten years.
#[must_use]
pub fn parse_duration(text: &str) -> Option<u64> {
    parse(text, &DURATIONS).filter(|duration| *duration <= MAX_DURATION_MS)
}

/// The shortest text of a duration of whole seconds.
#[must_use]
pub fn format_duration(ms: u64) -> String {
    format(ms, &DURATIONS)
}

/// The bytes of a size: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// The shortest text of a size.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|next: char| !next.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let largest = units.iter().find(fits).or(units.last());
    largest.map_or_else(String::new, |(name, factor)| format!("{}{name}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        for (text, ms) in [
            ("0s", Some(0)),
            ("1s", Some(1000)),
            ("90s", Some(90_000)),
            ("10m", Some(600_000)),
            ("24h", Some(86_400_000)),
            ("3650d", Some(MAX_DURATION_MS)),
            ("3651d", None),
            ("99999999999999999999s", None),
            ("10", None),
            ("m", None),
            ("1.5h", None),
            ("-1s", None),
            ("10 m", None),
            ("10M", None),
            ("", None),
        ] {
            assert_eq!(parse_duration(text), ms, "{text}");
            if let Some(ms) = ms {
                assert_eq!(parse_duration(&format_duration(ms)), Some(ms));
            }
        }
        for (text, bytes) in [
            ("0B", Some(0)),
            ("512B", Some(512)),
            ("20GiB", Some(20 << 30)),
            ("1TiB", Some(1 << 40)),
            ("20GB", None),
            ("99999999TiB", None),
            ("1", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
            if let Some(bytes) = bytes {
                assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
            }
        }
        assert_eq!(
            (format_duration(600_000), format_duration(86_400_000)),
            ("10m".into(), "1d".into())
        );
        assert_eq!(
            (format_size(1 << 31), format_size(1500)),
            ("2GiB".into(), "1500B".into())
        );
    }
}
