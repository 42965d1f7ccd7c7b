//! Writes bytes as lower-case hexadecimal digits.
//!
//! Every request writes digests and ids several times. The general formatter would add measurably to the cost of a
//! request.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` into `buffer` as two digits per byte, as far as `buffer` has space.
pub fn write<'a>(bytes: &[u8], buffer: &'a mut [u8]) -> &'a str {
    let mut length = 0;
    for (pair, byte) in buffer.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
        length += 2;
    }
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_as_the_formatter_writes_it() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(write(&bytes, &mut [0; 512]), expected.concat());
        assert_eq!(write(&bytes, &mut [0; 5]), "0001");
        assert_eq!(write(&[], &mut [0; 4]), "");
    }
}
