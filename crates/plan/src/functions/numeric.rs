//! Flink's functions on numbers that DataFusion lacks or means otherwise.

use arrow::array::ArrayRef;
use arrow::compute::{cast, kernels::numeric};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::Operator;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;

use super::digest::hex;
use super::udf::{Arguments, Definition, Kind, double, text};

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("mod", &[&[Kind::Number, Kind::Number]], remainder_type, remainder),
    Definition::new("log", &[&[Kind::Double], &[Kind::Double, Kind::Double]], double, log),
    // DataFusion fails a job at the root of a negative number and at a negative power of zero.
    Definition::new("sqrt", &[&[Kind::Double]], double, |a| {
        let of = a.double(0);
        a.map_double(|row| of.get(row).map(f64::sqrt))
    }),
    Definition::new("power", &[&[Kind::Double, Kind::Double]], double, |a| {
        let (base, exponent) = (a.double(0), a.double(1));
        a.map_double(|row| Some(base.get(row)?.powf(exponent.get(row)?)))
    })
    .also(&["pow"]),
    Definition::new("e", &[&[]], double, |a| a.map_double(|_| Some(std::f64::consts::E))),
    Definition::new("bin", &[&[Kind::Integer]], text, |a| {
        a.map_text(|row| a.integer(0).get(row).map(|n| format!("{n:b}")))
    }),
    Definition::new("hex", &[&[Kind::Integer], &[Kind::Bytes]], text, to_hex),
];

/// The common type of the two, as the operator `%` has it.
fn remainder_type(types: &[DataType]) -> DataType {
    let [left, right] = types else { return DataType::Int64 };
    BinaryTypeCoercer::new(left, &Operator::Modulo, right).get_result_type().unwrap_or(DataType::Float64)
}

fn remainder(args: &Arguments) -> Result<ArrayRef> {
    let (left, right) = (args.column(0)?, args.column(1)?);
    let coercer = BinaryTypeCoercer::new(left.data_type(), &Operator::Modulo, right.data_type());
    let (left_type, right_type) = coercer.get_input_types()?;
    let result = numeric::rem(&cast(&left, &left_type)?, &cast(&right, &right_type)?)?;
    Ok(cast(&result, &remainder_type(&[left.data_type().clone(), right.data_type().clone()]))?)
}

/// `LOG(x)` is the natural logarithm, `LOG(base, x)` that of a base, as in Flink.
fn log(args: &Arguments) -> Result<ArrayRef> {
    let first = args.double(0);
    if args.len() == 1 {
        return args.map_double(|row| first.get(row).map(f64::ln));
    }
    let second = args.double(1);
    args.map_double(|row| Some(second.get(row)?.ln() / first.get(row)?.ln()))
}

/// `HEX(n)` and `HEX(s)`, in upper case.
fn to_hex(args: &Arguments) -> Result<ArrayRef> {
    if *args.data_type(0) == DataType::Int64 {
        let number = args.integer(0);
        return args.map_text(|row| number.get(row).map(|n| format!("{n:X}")));
    }
    args.map_text(|row| args.bytes(0, row).map(|b| hex(b).to_uppercase()))
}
