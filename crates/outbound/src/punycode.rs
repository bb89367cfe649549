//! The letters of a label in ASCII and back: Punycode (RFC 3492) with the parameters of IDNA.

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 128;

/// The text of a label without its `xn--`; none if it is not Punycode in lower case.
pub(crate) fn decode(text: &str) -> Option<String> {
    let (basic, rest) = text.rsplit_once('-').unwrap_or(("", text));
    let mut letters: Vec<char> = basic.chars().collect();
    let (mut n, mut i, mut bias) = (INITIAL_N, 0u32, INITIAL_BIAS);
    let mut bytes = rest.bytes();
    while bytes.len() > 0 {
        let (before, mut weight, mut k) = (i, 1u32, BASE);
        loop {
            let digit = digit_of(bytes.next()?)?;
            i = i.checked_add(digit.checked_mul(weight)?)?;
            let t = threshold(k, bias);
            if digit < t {
                break;
            }
            weight = weight.checked_mul(BASE - t)?;
            k = k.checked_add(BASE)?;
        }
        let count = u32::try_from(letters.len()).ok()?.checked_add(1)?;
        bias = adapt(i - before, count, before == 0);
        n = n.checked_add(i / count)?;
        i %= count;
        letters.insert(usize::try_from(i).ok()?, char::from_u32(n)?);
        i += 1;
    }
    Some(letters.into_iter().collect())
}

/// The Punycode of a label, without `xn--`; none where it would be too long to be one.
pub(crate) fn encode(text: &str) -> Option<String> {
    let basic: String = text.chars().filter(char::is_ascii).collect();
    let mut handled = u32::try_from(basic.len()).ok()?;
    let first = handled;
    let all = u32::try_from(text.chars().count()).ok()?;
    let mut out = match basic.is_empty() {
        true => basic,
        false => basic + "-",
    };
    let (mut n, mut delta, mut bias) = (INITIAL_N, 0u32, INITIAL_BIAS);
    while handled < all {
        let next = text.chars().map(u32::from).filter(|c| *c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for c in text.chars().map(u32::from) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c == n {
                write_number(&mut out, delta, bias);
                bias = adapt(delta, handled + 1, handled == first);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    Some(out)
}

fn write_number(out: &mut String, number: u32, bias: u32) {
    let (mut rest, mut k) = (number, BASE);
    loop {
        let t = threshold(k, bias);
        if rest < t {
            break;
        }
        out.push(letter_of(t + (rest - t) % (BASE - t)));
        rest = (rest - t) / (BASE - t);
        k += BASE;
    }
    out.push(letter_of(rest));
}

fn threshold(k: u32, bias: u32) -> u32 {
    k.saturating_sub(bias).clamp(T_MIN, T_MAX)
}

fn adapt(delta: u32, count: u32, first: bool) -> u32 {
    let mut delta = delta / if first { DAMP } else { 2 };
    delta += delta / count;
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

fn digit_of(byte: u8) -> Option<u32> {
    match byte {
        b'a'..=b'z' => Some(u32::from(byte - b'a')),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 26),
        _ => None,
    }
}

fn letter_of(digit: u32) -> char {
    // It is below 36 by the arithmetic above.
    char::from_digit((digit + 10) % BASE, BASE).map_or('-', |c| match digit {
        0..=25 => char::from(b'a' + digit as u8),
        _ => c,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 3492, section 7.1, and a few names.
    const TABLE: [(&str, &str); 6] = [
        ("münchen", "mnchen-3ya"),
        ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
        (
            "почемужеонинеговорятпорусски",
            "b1abfaaepdrnnbgefbadotcwatmq2g4l",
        ),
        ("ລາວ", "q7ce6a"),
        ("bücher", "bcher-kva"),
        (
            "安室奈美恵-with-super-monkeys",
            "-with-super-monkeys-pc58ag80a8qai00g7n9n",
        ),
    ];

    #[test]
    fn names_go_there_and_back() {
        for (text, code) in TABLE {
            assert_eq!(encode(text).as_deref(), Some(code));
            assert_eq!(decode(code).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_punycode_has_no_text() {
        for bad in ["99999999999", "a-é", "A"] {
            let read = decode(bad);
            assert!(
                read.is_none_or(|text| encode(&text).as_deref() != Some(bad)),
                "{bad}"
            );
        }
    }
}
