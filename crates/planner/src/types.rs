//! Flink's column types as Arrow types: from the text of a `CREATE TABLE`, and from the parser's types in
//! `CAST`. The mapping is the one that [`mainstem_connectors::TableSpec`] documents.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion_common::Result;
use datafusion_expr::planner::TypePlanner;
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{ErrorCode, SqlError};

/// Deepest nesting of `ROW`, `ARRAY` and `MAP`.
const NESTING_MAX: usize = 32;

/// Reads a type and whether a value may be NULL (`NOT NULL` after the type).
pub(crate) fn parse(parser: &mut Parser) -> Result<(DataType, bool), SqlError> {
    TypeParser { parser, open_brackets: 0 }.parse(0)
}

struct TypeParser<'a, 'b> {
    parser: &'a mut Parser<'b>,
    /// A `>>` token closes two brackets: the second one is remembered here.
    open_brackets: usize,
}

impl TypeParser<'_, '_> {
    fn parse(&mut self, depth: usize) -> Result<(DataType, bool), SqlError> {
        let token = self.parser.next_token();
        if depth > NESTING_MAX {
            return Err(SqlError::new(
                ErrorCode::Limit,
                token.span,
                format!("types may be nested {NESTING_MAX} deep at most"),
            ));
        }
        let Token::Word(word) = &token.token else {
            return Err(SqlError::new(
                ErrorCode::Syntax,
                token.span,
                format!("expected a type, found '{}'", token.token),
            ));
        };
        let name = word.value.to_ascii_uppercase();
        let data_type = match name.as_str() {
            "ROW" => self.row(depth)?,
            "ARRAY" => {
                let (item, nullable) = self.bracketed(|types| types.parse(depth + 1))?;
                DataType::List(Arc::new(Field::new_list_field(item, nullable)))
            }
            "MAP" => {
                let ((key, _), (value, nullable)) = self.bracketed(|types| {
                    let key = types.parse(depth + 1)?;
                    types.parser.expect_token(&Token::Comma)?;
                    Ok((key, types.parse(depth + 1)?))
                })?;
                map_type(key, value, nullable)
            }
            "MULTISET" | "RAW" | "INTERVAL" | "VARIANT" | "STRUCTURED" => {
                return Err(SqlError::unsupported(token.span, format!("columns of type {name} are not supported")));
            }
            _ => self.simple(&name, &token)?,
        };
        let nullable = !self.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
        if nullable {
            // A plain NULL says what holds anyway.
            let _ = self.parser.parse_keyword(Keyword::NULL);
        }
        Ok((data_type, nullable))
    }

    fn row(&mut self, depth: usize) -> Result<DataType, SqlError> {
        let parenthesised = self.parser.consume_token(&Token::LParen);
        if !parenthesised {
            self.parser.expect_token(&Token::Lt)?;
        }
        let mut fields = Vec::<Field>::new();
        loop {
            let name = self.parser.parse_identifier()?;
            let (data_type, nullable) = self.parse(depth + 1)?;
            if self.parser.parse_keyword(Keyword::COMMENT)
                || matches!(self.parser.peek_token_ref().token, Token::SingleQuotedString(_))
            {
                self.parser.parse_literal_string()?;
            }
            if fields.iter().any(|field| *field.name() == name.value) {
                return Err(SqlError::new(
                    ErrorCode::Name,
                    name.span,
                    format!("the field '{}' appears twice in this ROW", name.value),
                ));
            }
            fields.push(Field::new(name.value, data_type, nullable));
            if self.open_brackets > 0 || !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if parenthesised {
            self.parser.expect_token(&Token::RParen)?;
        } else {
            self.close_bracket()?;
        }
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn bracketed<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.parser.expect_token(&Token::Lt)?;
        let value = inner(self)?;
        self.close_bracket()?;
        Ok(value)
    }

    fn close_bracket(&mut self) -> Result<(), SqlError> {
        if self.open_brackets > 0 {
            self.open_brackets -= 1;
            return Ok(());
        }
        if self.parser.consume_token(&Token::ShiftRight) {
            self.open_brackets += 1;
            return Ok(());
        }
        self.parser.expect_token(&Token::Gt)?;
        Ok(())
    }

    fn simple(&mut self, name: &str, token: &TokenWithSpan) -> Result<DataType, SqlError> {
        if name == "DOUBLE" {
            let _ = self.parser.parse_keyword(Keyword::PRECISION);
        }
        if name == "CHARACTER" || name == "CHAR" {
            let _ = self.parser.parse_keyword(Keyword::VARYING);
        }
        let mut arguments = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            arguments = self.parser.parse_comma_separated(Parser::parse_literal_uint)?;
            self.parser.expect_token(&Token::RParen)?;
        }
        let mut local = name.ends_with("_LTZ");
        if name == "TIMESTAMP" || name == "TIME" {
            if self.parser.parse_keyword(Keyword::WITHOUT) {
                self.expect_time_zone()?;
            } else if self.parser.parse_keyword(Keyword::WITH) {
                local = self.parser.parse_keyword(Keyword::LOCAL);
                self.expect_time_zone()?;
                if !local {
                    let message = format!("{name} WITH TIME ZONE is not supported; {name} WITH LOCAL TIME ZONE is");
                    return Err(SqlError::unsupported(token.span, message));
                }
            }
        }
        named(name, &arguments, local).map_err(|message| SqlError::unsupported(token.span, message))
    }

    fn expect_time_zone(&mut self) -> Result<(), SqlError> {
        // LOCAL, where it was given, has been taken already.
        self.parser.expect_keyword(Keyword::TIME)?;
        self.parser.expect_keyword(Keyword::ZONE)?;
        Ok(())
    }
}

/// The Arrow type of a plain type name, or why there is none.
fn named(name: &str, arguments: &[u64], local: bool) -> Result<DataType, String> {
    let most = match name {
        "DECIMAL" | "DEC" | "NUMERIC" => 2,
        "CHAR" | "CHARACTER" | "VARCHAR" | "BINARY" | "VARBINARY" | "TIME" | "TIMESTAMP" | "TIMESTAMP_LTZ" => 1,
        _ => 0,
    };
    if arguments.len() > most {
        return Err(format!("the type {name} takes {most} argument{}", if most == 1 { "" } else { "s" }));
    }
    Ok(match name {
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "FLOAT" | "REAL" => DataType::Float32,
        "DOUBLE" => DataType::Float64,
        "DECIMAL" | "DEC" | "NUMERIC" => return decimal(arguments),
        "CHAR" | "CHARACTER" | "VARCHAR" | "STRING" => DataType::Utf8,
        "BYTES" | "BINARY" | "VARBINARY" => DataType::Binary,
        "DATE" => DataType::Date32,
        "TIME" => DataType::Time32(TimeUnit::Millisecond),
        "TIMESTAMP" | "TIMESTAMP_LTZ" => return timestamp(arguments.first().copied(), local),
        _ => {
            return Err(format!(
                "the type '{name}' is unknown; known are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL, CHAR, VARCHAR, STRING, BYTES, DATE, TIME, TIMESTAMP, TIMESTAMP_LTZ, ROW, ARRAY and MAP"
            ));
        }
    })
}

fn decimal(arguments: &[u64]) -> Result<DataType, String> {
    // Flink's defaults.
    let precision = arguments.first().copied().unwrap_or(10);
    let scale = arguments.get(1).copied().unwrap_or(0);
    if precision == 0 || precision > u64::from(DECIMAL128_MAX_PRECISION) || scale > precision {
        return Err(format!(
            "DECIMAL({precision}, {scale}) is out of range: the precision is 1 to {DECIMAL128_MAX_PRECISION}, the scale 0 to the precision"
        ));
    }
    let small = |number: u64| i8::try_from(number).expect("at most 38");
    Ok(DataType::Decimal128(small(precision).unsigned_abs(), small(scale)))
}

fn timestamp(precision: Option<u64>, local: bool) -> Result<DataType, String> {
    let unit = match precision.unwrap_or(6) {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        7..=9 => TimeUnit::Nanosecond,
        other => return Err(format!("TIMESTAMP({other}) is out of range: the precision is 0 to 9")),
    };
    Ok(DataType::Timestamp(unit, local.then(|| "UTC".into())))
}

fn map_type(key: DataType, value: DataType, nullable: bool) -> DataType {
    let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, nullable)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

/// Types in `CAST`.
#[derive(Debug)]
pub(crate) struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let data_type = from_sql(sql_type)
            .map_err(|message| SqlError::unsupported(crate::error::At::NOWHERE, message).into_datafusion())?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

fn from_sql(sql_type: &ast::DataType) -> Result<DataType, String> {
    use ast::{ArrayElemTypeDef, DataType as Sql, ExactNumberInfo, TimezoneInfo};
    match sql_type {
        Sql::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, None)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => Ok(DataType::List(Arc::new(Field::new_list_field(from_sql(item)?, true)))),
        Sql::Map(key, value) => Ok(map_type(from_sql(key)?, from_sql(value)?, true)),
        Sql::Decimal(info) | Sql::Dec(info) | Sql::Numeric(info) => match info {
            ExactNumberInfo::None => decimal(&[]),
            ExactNumberInfo::Precision(precision) => decimal(&[*precision]),
            ExactNumberInfo::PrecisionAndScale(precision, scale) => decimal(&[
                *precision,
                u64::try_from(*scale).map_err(|_| "the scale of a DECIMAL is not negative".to_owned())?,
            ]),
        },
        Sql::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => timestamp(*precision, false),
        Sql::Custom(name, arguments) => {
            let name = name.to_string().to_ascii_uppercase();
            let arguments: Result<Vec<u64>, _> = arguments.iter().map(|argument| argument.trim().parse()).collect();
            let arguments = arguments.map_err(|_| format!("the arguments of the type {name} are numbers"))?;
            named(&name, &arguments, name == "TIMESTAMP_LTZ")
        }
        Sql::CharacterVarying(_) | Sql::CharVarying(_) | Sql::String(_) | Sql::Varchar(_) => Ok(DataType::Utf8),
        Sql::DoublePrecision => Ok(DataType::Float64),
        Sql::Float(ExactNumberInfo::None) => Ok(DataType::Float32),
        Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Ok(DataType::Time32(TimeUnit::Millisecond)),
        other => {
            // The rest have a name and at most lengths, which do not matter here.
            let text = other.to_string().to_ascii_uppercase();
            let name = text.split('(').next().unwrap_or(&text);
            named(name, &[], false)
        }
    }
}
