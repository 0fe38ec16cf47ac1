//! Flink's `MATCH_RECOGNIZE` for a parser that knows another one: `WITHIN` behind the pattern becomes the first entry
//! of DEFINE, and a query in parentheses before the clause becomes the argument of a function. What is not supported
//! and leaves no place in the parser's output is refused here. Called with the tokens of a text, before they are
//! parsed; leaves them alone where there is no such clause.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::error::{ErrorCode, SqlError};

/// How deep parentheses may be nested in a pattern. The parser has no bound of its own there.
const NESTING_MAX: usize = 50;

/// The variable of DEFINE that holds the length of WITHIN. No user can write it without quotes.
pub(crate) const WITHIN: &str = "WITHIN INTERVAL";
/// The table function whose argument is the query before the clause. Neither can this be written.
pub(crate) const QUERY_INPUT: &str = "QUERY INPUT";

/// The tokens as the parser understands them.
pub(super) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut clauses: Vec<usize> = (0..tokens.len()).filter(|at| is_word(&tokens[*at], "MATCH_RECOGNIZE")).collect();
    while let Some(clause) = clauses.pop() {
        let open = next(&tokens, clause + 1);
        if !is(&tokens, open, &Token::LParen) {
            continue;
        }
        let Some(close) = closing(&tokens, open) else { continue };
        if let Some(refusal) = refused(&tokens, open, close) {
            return Err(refusal);
        }
        move_within(&mut tokens, open, close);
        if let Some(wrapped) = wrap_query(&mut tokens, clause) {
            // Clauses of the query itself have moved.
            clauses.iter_mut().filter(|at| **at > wrapped).for_each(|at| *at += 2);
        }
    }
    Ok(tokens)
}

fn is_word(token: &TokenWithSpan, text: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn is(tokens: &[TokenWithSpan], at: usize, token: &Token) -> bool {
    tokens.get(at).is_some_and(|found| found.token == *token)
}

/// The first token from `at` on that is no space.
fn next(tokens: &[TokenWithSpan], at: usize) -> usize {
    (at..tokens.len()).find(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).unwrap_or(tokens.len())
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (open..tokens.len()).find(|at| {
        match tokens[*at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// The tokens of the clause itself, without what stands in further parentheses.
fn outermost(tokens: &[TokenWithSpan], open: usize, close: usize) -> Vec<usize> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().take(close).skip(open + 1) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Whitespace(_) => continue,
            _ if depth == 0 => found.push(at),
            _ => {}
        }
    }
    found
}

/// The parentheses of the pattern.
fn pattern(tokens: &[TokenWithSpan], outermost: &[usize]) -> Option<(usize, usize)> {
    let word = outermost.iter().find(|at| {
        let follows = next(tokens, **at + 1);
        is_word(&tokens[**at], "PATTERN") && is(tokens, follows, &Token::LParen)
    })?;
    let open = next(tokens, word + 1);
    Some((open, closing(tokens, open)?))
}

fn refused(tokens: &[TokenWithSpan], open: usize, close: usize) -> Option<SqlError> {
    let outermost = outermost(tokens, open, close);
    let refuse = |at: usize, message: &str| Some(SqlError::unsupported(tokens[at].span, message));
    for at in &outermost {
        let follows = next(tokens, at + 1);
        let before = |word: &str| follows < close && is_word(&tokens[follows], word);
        if is_word(&tokens[*at], "ALL") && before("ROWS") {
            return refuse(
                *at,
                "ALL ROWS PER MATCH is not supported; ONE ROW PER MATCH is, with MEASURES that aggregate",
            );
        }
        if is_word(&tokens[*at], "SUBSET") {
            return refuse(*at, "SUBSET is not supported; name the variables one by one");
        }
    }
    let (open, close) = pattern(tokens, &outermost)?;
    let mut depth = 0_usize;
    for at in open + 1..close {
        let token = &tokens[at];
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            let message = format!("PATTERN is nested deeper than {NESTING_MAX}");
            return Some(SqlError::new(ErrorCode::Limit, token.span, message));
        }
        let next_is = |token: &Token| is(tokens, next(tokens, at + 1), token);
        let message = match &token.token {
            Token::Pipe => "alternatives (|) are not supported in PATTERN; write a condition with OR, or two queries",
            Token::Caret => "^ is not supported in PATTERN: a stream has no first row to wait for",
            Token::Placeholder(sign) if sign == "$" => "$ is not supported in PATTERN: a stream has no last row",
            Token::LBrace if next_is(&Token::Minus) => "exclusion ({- -}) is not supported in PATTERN",
            Token::Word(_) if is_word(token, "PERMUTE") && next_is(&Token::LParen) => {
                "PERMUTE is not supported in PATTERN; write the variables in one order"
            }
            _ => continue,
        };
        return refuse(at, message);
    }
    None
}

/// `PATTERN (...) WITHIN x DEFINE` to `PATTERN (...) DEFINE <WITHIN> AS x,`.
fn move_within(tokens: &mut Vec<TokenWithSpan>, open: usize, close: usize) {
    let outermost = outermost(tokens, open, close);
    let Some((_, pattern_end)) = pattern(tokens, &outermost) else { return };
    let within = next(tokens, pattern_end + 1);
    if within >= close || !is_word(&tokens[within], "WITHIN") {
        return;
    }
    let Some(define) = outermost.iter().copied().find(|at| *at > within && is_word(&tokens[*at], "DEFINE")) else {
        return;
    };
    let length: Vec<TokenWithSpan> = tokens[within + 1..define].to_vec();
    let span = tokens[within].span;
    let mut moved = vec![tokens[define].clone(), word(WITHIN, Keyword::NoKeyword, span), word("AS", Keyword::AS, span)];
    moved.extend(length);
    moved.push(TokenWithSpan { token: Token::Comma, span: tokens[define].span });
    tokens.splice(within..=define, moved);
}

/// `(query) MATCH_RECOGNIZE` to `<function>((query)) MATCH_RECOGNIZE`. Gives the place before which two tokens were
/// put in.
fn wrap_query(tokens: &mut Vec<TokenWithSpan>, clause: usize) -> Option<usize> {
    let close = (0..clause).rev().find(|at| !matches!(tokens[*at].token, Token::Whitespace(_)))?;
    if tokens[close].token != Token::RParen {
        return None;
    }
    let mut depth = 0_usize;
    let open = (0..=close).rev().find(|at| {
        match tokens[*at].token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })?;
    let first = tokens.get(next(tokens, open + 1))?;
    if !["SELECT", "WITH", "VALUES"].iter().any(|query| is_word(first, query)) {
        return None;
    }
    let (from, to) = (tokens[open].span, tokens[close].span);
    tokens.insert(close, TokenWithSpan { token: Token::RParen, span: to });
    let before = [word(QUERY_INPUT, Keyword::NoKeyword, from), TokenWithSpan { token: Token::LParen, span: from }];
    tokens.splice(open..open, before);
    Some(open)
}

fn word(value: &str, keyword: Keyword, span: Span) -> TokenWithSpan {
    TokenWithSpan { token: Token::Word(Word { value: value.to_owned(), quote_style: None, keyword }), span }
}
