//! Checksums that formats carry: what has a right one is no example of a manual.

/// CRC-32 (ISO 3309, as in zlib), bit by bit: it is asked about a few dozen bytes, seldom.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Whether the last six characters are the checksum of those before, as in tokens of GitHub and
/// npm: CRC-32 in base 62, digits first, filled up with zeros.
/// <https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>
pub(super) fn ends_with_crc32(random: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((body, end)) = random.split_last_chunk::<6>() else {
        return false;
    };
    let mut rest = crc32(body) as usize;
    end.iter().rev().all(|digit| {
        let right = DIGITS[rest % 62];
        rest /= 62;
        *digit == right
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_right_checksum_is_known_from_a_wrong_one() {
        // CRC-32 of "abc" is 0x352441C2, written in base 62 here.
        let mut number = 0x3524_41C2_usize;
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut end = [0; 6];
        for place in end.iter_mut().rev() {
            *place = digits[number % 62];
            number /= 62;
        }
        let right = [b"abc".as_slice(), &end].concat();
        assert!(ends_with_crc32(&right));
        assert!(!ends_with_crc32(&[b"abd".as_slice(), &end].concat()));
        assert!(!ends_with_crc32(b"abc"));
    }
}
