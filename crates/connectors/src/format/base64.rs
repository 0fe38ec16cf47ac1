//! Base64 (RFC 4648, standard alphabet), as JSON and CSV carry BYTES. Called by the columns of type BYTES.

const INVALID: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [INVALID; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut i = 0;
    while i < alphabet.len() {
        values[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Appends the bytes that `text` stands for and gives true; false where it is not base64. The padding may be
/// left out. `out` may hold a part of the bytes where the answer is false.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let padding = text.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > 0 && !text.len().is_multiple_of(4) {
        return false;
    }
    let mut groups = digits.chunks_exact(4);
    for group in &mut groups {
        let values = [group[0], group[1], group[2], group[3]].map(|b| VALUES[usize::from(b)]);
        if values.contains(&INVALID) {
            return false;
        }
        out.extend([values[0] << 2 | values[1] >> 4, values[1] << 4 | values[2] >> 2, values[2] << 6 | values[3]]);
    }
    let tail: Vec<u8> = groups.remainder().iter().map(|&b| VALUES[usize::from(b)]).collect();
    if tail.contains(&INVALID) {
        return false;
    }
    // The bits that do not fill a byte must be zero, else two texts would stand for the same bytes.
    match tail[..] {
        [] => true,
        [a, b] if b & 0x0f == 0 => {
            out.push(a << 2 | b >> 4);
            true
        }
        [a, b, c] if c & 0x03 == 0 => {
            out.extend([a << 2 | b >> 4, b << 4 | c >> 2]);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text.as_bytes(), &mut out).then_some(out)
    }

    #[test]
    fn the_vectors_of_the_rfc() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Zm9vYmE", "fooba"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decoded("/+8="), Some(vec![0xff, 0xef]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["Z", "Zg=", "Zh==", "Zm9=", "Zm 9v", "Zm9v=", "====", "_-8="] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
