//! `Range` and `Content-Range`: tables, and a byte-by-byte model of the bytes that a range selects.

use oci::{ContentRange, ContentRangeError, RangeHeader, RangeSpec, parse_range};
use proptest::prelude::*;

use RangeSpec::{From, FromTo, Suffix};

#[test]
fn range_headers_parse_or_are_ignored() {
    let specs = |specs: &[RangeSpec]| RangeHeader::Specs(specs.to_vec());
    for (header, expected) in [
        ("bytes=0-4", specs(&[FromTo(0, 4)])),
        ("bytes=500-1499", specs(&[FromTo(500, 1499)])),
        ("bytes=500-", specs(&[From(500)])),
        ("bytes=-500", specs(&[Suffix(500)])),
        ("bytes=500-0", specs(&[FromTo(500, 0)])),
        ("bytes=-0", specs(&[Suffix(0)])),
        ("Bytes=0-4", specs(&[FromTo(0, 4)])),
        ("BYTES=0-4", specs(&[FromTo(0, 4)])),
        (" bytes=0-4\t", specs(&[FromTo(0, 4)])),
        ("bytes=007-08", specs(&[FromTo(7, 8)])),
        ("bytes=0-4, -5", specs(&[FromTo(0, 4), Suffix(5)])),
        ("bytes=,0-4,,\t 6- , ,-5,", specs(&[FromTo(0, 4), From(6), Suffix(5)])),
        ("bytes=0-99999999999999999999999", specs(&[FromTo(0, u64::MAX)])),
        ("bytes=99999999999999999999999-", specs(&[From(u64::MAX)])),
        ("bytes=-99999999999999999999999", specs(&[Suffix(u64::MAX)])),
        (
            "bytes=18446744073709551615-18446744073709551616",
            specs(&[FromTo(u64::MAX, u64::MAX)]),
        ),
        ("bytes=1-1,2-2,3-3,4-4", RangeHeader::TooMany),
        ("bytes=1-1,2-2,3-3,4-4,nonsense", RangeHeader::TooMany),
        ("bytes=1-1,2-2,nonsense,4-4,5-5", RangeHeader::Ignored),
        ("", RangeHeader::Ignored),
        ("bytes", RangeHeader::Ignored),
        ("bytes=", RangeHeader::Ignored),
        ("bytes=,,", RangeHeader::Ignored),
        ("bytes=-", RangeHeader::Ignored),
        ("bytes=--5", RangeHeader::Ignored),
        ("bytes=0--5", RangeHeader::Ignored),
        ("bytes=0-4-5", RangeHeader::Ignored),
        ("bytes=5", RangeHeader::Ignored),
        ("bytes=a-b", RangeHeader::Ignored),
        ("bytes=+1-2", RangeHeader::Ignored),
        ("bytes=0x1-2", RangeHeader::Ignored),
        ("bytes=1.0-2", RangeHeader::Ignored),
        ("bytes=0 - 4", RangeHeader::Ignored),
        ("bytes =0-4", RangeHeader::Ignored),
        ("bytes=\u{a0}0-4", RangeHeader::Ignored),
        ("bytes=٠-٤", RangeHeader::Ignored),
        ("bytes 0-4", RangeHeader::Ignored),
        ("items=0-4", RangeHeader::Ignored),
        ("=0-4", RangeHeader::Ignored),
        ("0-4", RangeHeader::Ignored),
    ] {
        assert_eq!(parse_range(header, 3), expected, "{header:?}");
    }
    assert_eq!(parse_range("bytes=0-1", 0), RangeHeader::TooMany);
}

#[test]
fn ranges_resolve_to_the_selected_bytes() {
    for (spec, size, expected) in [
        (FromTo(0, 4), 10, Some(0..5)),
        (FromTo(0, 0), 10, Some(0..1)),
        (FromTo(9, 9), 10, Some(9..10)),
        (FromTo(9, 99), 10, Some(9..10)),
        (FromTo(10, 10), 10, None),
        (FromTo(5, 4), 10, None),
        (FromTo(500, 0), 2048, None),
        (FromTo(u64::MAX, 0), 10, None),
        (FromTo(0, u64::MAX), 10, Some(0..10)),
        (FromTo(0, u64::MAX), u64::MAX, Some(0..u64::MAX)),
        (FromTo(u64::MAX, u64::MAX), u64::MAX, None),
        (FromTo(0, 0), 0, None),
        (From(0), 10, Some(0..10)),
        (From(9), 10, Some(9..10)),
        (From(10), 10, None),
        (From(u64::MAX), 10, None),
        (From(0), 0, None),
        (Suffix(0), 10, None),
        (Suffix(1), 10, Some(9..10)),
        (Suffix(10), 10, Some(0..10)),
        (Suffix(11), 10, Some(0..10)),
        (Suffix(u64::MAX), 10, Some(0..10)),
        (Suffix(5), 0, None),
    ] {
        assert_eq!(spec.resolve(size), expected, "{spec:?} of {size}");
    }
}

#[test]
fn content_ranges_parse_or_are_refused() {
    for (text, first, last) in [
        ("0-0", 0, 0),
        ("0-1023", 0, 1023),
        ("1024-2047", 1024, 2047),
        (" 5-9 ", 5, 9),
        ("bytes 0-9/10", 0, 9),
        ("bytes 0-9/*", 0, 9),
        ("Bytes 5-9/1000", 5, 9),
        ("0-9223372036854775807", 0, 9_223_372_036_854_775_807),
    ] {
        assert_eq!(text.parse(), Ok(ContentRange { first, last }), "{text:?}");
    }
    for text in [
        "",
        "-",
        "0-",
        "-9",
        "9-0",
        "0-9-10",
        "a-b",
        "+0-9",
        "0 - 9",
        "0-9/10",
        "0-9 /10",
        "bytes=0-9",
        "bytes=0-9/10",
        "bytes 0-9",
        "bytes 0-9/",
        "bytes 0-9/9",
        "bytes 0-9/0",
        "bytes 0-9/x",
        "bytes 0-9/10/10",
        "bytes  0-9/10",
        "bytes */10",
        "bytes 9-0/10",
        "items 0-9/10",
        "0-9223372036854775808",
        "0-18446744073709551616",
        "99999999999999999999999-99999999999999999999999",
        "٠-٩",
    ] {
        assert_eq!(text.parse::<ContentRange>(), Err(ContentRangeError), "{text:?}");
    }
}

#[test]
fn a_content_range_has_its_length() {
    for (first, last, length) in [(0, 0, 1), (5, 9, 5), (0, u64::MAX, u64::MAX), (u64::MAX, u64::MAX, 1)] {
        assert_eq!(ContentRange { first, last }.len(), length);
    }
}

proptest! {
    /// Compares with the definition, byte by byte.
    #[test]
    fn ranges_select_exactly_the_defined_bytes(a in 0u64..40, b in 0u64..40, size in 0u64..30) {
        let selects = |spec: RangeSpec, position: u64| match spec {
            FromTo(first, last) => first <= position && position <= last,
            From(first) => first <= position,
            Suffix(length) => size - position <= length,
        };
        for spec in [FromTo(a, b), From(a), Suffix(a)] {
            let expected: Vec<u64> = (0..size).filter(|at| selects(spec, *at)).collect();
            let resolved: Vec<u64> = spec.resolve(size).map(Iterator::collect).unwrap_or_default();
            prop_assert_eq!(resolved, expected, "{:?} of {}", spec, size);
        }
    }

    #[test]
    fn no_range_resolves_beyond_the_size(a: u64, b: u64, size: u64) {
        for spec in [FromTo(a, b), From(a), Suffix(a)] {
            if let Some(range) = spec.resolve(size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }

    #[test]
    fn no_header_makes_a_parser_panic(header in "\\PC*|(bytes ?=?)?[0-9, */-]*", max in 0usize..5) {
        if let RangeHeader::Specs(specs) = parse_range(&header, max) {
            prop_assert!(!specs.is_empty() && specs.len() <= max);
        }
        if let Ok(range) = header.parse::<ContentRange>() {
            prop_assert!(range.first <= range.last);
            prop_assert_eq!(range.len(), range.last - range.first + 1);
        }
    }

    #[test]
    fn content_ranges_round_trip(first in 0u64..1 << 62, length in 1u64..1 << 62) {
        let range = ContentRange { first, last: first + length - 1 };
        prop_assert_eq!(format!("{}-{}", range.first, range.last).parse(), Ok(range));
        prop_assert_eq!(range.len(), length);
    }
}
