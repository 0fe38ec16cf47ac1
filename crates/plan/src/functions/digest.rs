//! Hash functions that give hexadecimal text, as in Flink. DataFusion computes all but SHA-1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::{DataType, Field};
use datafusion_common::Result;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::udf::{Arguments, Definition, Kind, failed, text};

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("md5", &[&[Kind::Bytes]], text, |a| theirs(a, &datafusion_functions::crypto::md5())),
    Definition::new("sha1", &[&[Kind::Bytes]], text, |a| a.map_text(|row| a.bytes(0, row).map(|b| hex(&sha1(b))))),
    Definition::new("sha224", &[&[Kind::Bytes]], text, |a| theirs(a, &datafusion_functions::crypto::sha224())),
    Definition::new("sha256", &[&[Kind::Bytes]], text, |a| theirs(a, &datafusion_functions::crypto::sha256())),
    Definition::new("sha384", &[&[Kind::Bytes]], text, |a| theirs(a, &datafusion_functions::crypto::sha384())),
    Definition::new("sha512", &[&[Kind::Bytes]], text, |a| theirs(a, &datafusion_functions::crypto::sha512())),
    Definition::new("sha2", &[&[Kind::Bytes, Kind::Integer]], text, sha2),
];

/// Lower case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn theirs(args: &Arguments, function: &ScalarUDF) -> Result<ArrayRef> {
    let input = args.column(0)?;
    let return_type = function.return_type(&[DataType::Binary])?;
    let call = ScalarFunctionArgs {
        args: vec![ColumnarValue::Array(input)],
        arg_fields: vec![Arc::new(Field::new("input", DataType::Binary, true))],
        number_rows: args.rows,
        return_field: Arc::new(Field::new("output", return_type, true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    let result = function.invoke_with_args(call)?.into_array(args.rows)?;
    // MD5 is text already, the others are bytes.
    if result.data_type().is_string() {
        return Ok(arrow::compute::cast(&result, &DataType::Utf8)?);
    }
    let result = arrow::compute::cast(&result, &DataType::Binary)?;
    let digests: &BinaryArray = result.as_binary();
    args.map_text(|row| digests.is_valid(row).then(|| hex(digests.value(row))))
}

/// `SHA2(s, bits)`; the number of bits must be the same in every row of a batch.
fn sha2(args: &Arguments) -> Result<ArrayRef> {
    let bits = args.integer(1);
    let Some(first) = (0..args.rows).find_map(|row| bits.get(row)) else {
        return args.map_text(|_| None::<&str>);
    };
    if let Some(other) = (0..args.rows).filter_map(|row| bits.get(row)).find(|b| *b != first) {
        return failed(format!("SHA2: the number of bits must be a constant, but it is {first} and {other}"));
    }
    match first {
        224 => theirs(args, &datafusion_functions::crypto::sha224()),
        256 => theirs(args, &datafusion_functions::crypto::sha256()),
        384 => theirs(args, &datafusion_functions::crypto::sha384()),
        512 => theirs(args, &datafusion_functions::crypto::sha512()),
        other => failed(format!("SHA2: {other} bits do not exist; there are 224, 256, 384 and 512")),
    }
}

/// SHA-1 as in FIPS 180-4, section 6.1.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let length_at = padded.len() - 8;
    padded[length_at..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    padded.chunks_exact(64).for_each(|block| sha1_block(&mut state, block));
    let mut digest = [0; 20];
    digest.chunks_exact_mut(4).zip(state).for_each(|(out, word)| out.copy_from_slice(&word.to_be_bytes()));
    digest
}

fn sha1_block(state: &mut [u32; 5], block: &[u8]) {
    let mut schedule = [0u32; 80];
    for (word, bytes) in schedule.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for t in 16..80 {
        schedule[t] = (schedule[t - 3] ^ schedule[t - 8] ^ schedule[t - 14] ^ schedule[t - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (t, word) in schedule.into_iter().enumerate() {
        let (mix, constant) = match t {
            0..20 => ((b & c) | (!b & d), 0x5A82_7999),
            20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC_u32),
            _ => (b ^ c ^ d, 0xCA62_C1D6),
        };
        let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    state.iter_mut().zip([a, b, c, d, e]).for_each(|(s, v)| *s = s.wrapping_add(v));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_of_the_standard_messages() {
        assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(&sha1(long)), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    }
}
