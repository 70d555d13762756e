//! RE2 patterns, as Envoy has them, in the syntax of the `regex` crate.
//!
//! The two agree on most of the syntax. Where the same text means something else, it is rewritten (`\d` is ASCII in RE2 and
//! Unicode here; `[a&&b]` is a set operation here); what cannot be rewritten is refused.

use std::iter::Peekable;
use std::str::Chars;

use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use regex::{Regex, RegexBuilder};

use super::at::{At, no_effect};

/// The largest program that a pattern may become, in bytes: it bounds the memory, and the time that compiling takes. Unicode's
/// largest classes need a tenth of it.
const LARGEST_PROGRAM: usize = 1 << 20;
/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 64 << 10;

/// A pattern that must match the whole text.
pub(super) fn full_match(value: RegexMatcher, at: &At<'_>) -> Option<Regex> {
    let pattern = pattern(value, at);
    compile(&pattern, |translated| format!(r"\A(?:{translated})\z"), &at.field("regex"))
}

/// A pattern whose every match is replaced, and the replacement in the `regex` crate's form.
pub(super) fn substitution(value: RegexMatchAndSubstitute, at: &At<'_>) -> Option<(Regex, String)> {
    let RegexMatchAndSubstitute { pattern: matcher, substitution } = value;
    let at_pattern = at.field("pattern");
    let pattern = pattern(at_pattern.required(matcher)?, &at_pattern);
    let regex = compile(&pattern, str::to_owned, &at_pattern.field("regex"))?;
    let replacement = replacement(&substitution, regex.captures_len())
        .or_else(|| at.field("substitution").refuse("names a group that the pattern does not have"))?;
    Some((regex, replacement))
}

fn pattern(value: RegexMatcher, at: &At<'_>) -> String {
    let RegexMatcher { regex, engine_type } = value;
    no_effect!(at; "can only be RE2; the size of programs is limited here in any case"; engine_type);
    regex
}

fn compile(pattern: &str, anchor: impl FnOnce(&str) -> String, at: &At<'_>) -> Option<Regex> {
    if pattern.len() > LONGEST_PATTERN {
        let (len, limit) = (pattern.len(), LONGEST_PATTERN);
        return at.refuse(format!("is {len} bytes long; the limit is {limit}"));
    }
    let compiled = Translation::of(pattern).and_then(|translated| {
        // Alone first, so that an unbalanced parenthesis cannot close the one around it.
        bounded(&translated).and_then(|_| bounded(&anchor(&translated))).map_err(|error| error.to_string())
    });
    compiled.map_or_else(|error| at.refuse(format!("{pattern:?} is not supported: {error}")), Some)
}

fn bounded(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(LARGEST_PROGRAM).build()
}

/// `\1` becomes `${1}`, `\\` a backslash, and a dollar sign is kept from meaning anything.
fn replacement(substitution: &str, groups: usize) -> Option<String> {
    let mut out = String::new();
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next()? {
                '\\' => out.push('\\'),
                digit => {
                    let group = digit.to_digit(10)?;
                    if usize::try_from(group).ok()? >= groups {
                        return None;
                    }
                    out.extend(['$', '{', digit, '}']);
                }
            },
            other => out.push(other),
        }
    }
    Some(out)
}

struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl<'a> Translation<'a> {
    fn of(pattern: &'a str) -> Result<String, String> {
        let mut translation = Self { rest: pattern.chars().peekable(), out: String::new() };
        while let Some(c) = translation.rest.next() {
            match c {
                '\\' => translation.escape(false)?,
                '[' => translation.class()?,
                '(' => translation.group()?,
                other => translation.out.push(other),
            }
        }
        Ok(translation.out)
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let c = self.rest.next().ok_or("it ends with a backslash")?;
        // Inside of a class, too: as a class of its own it cannot become the end of a range.
        let ascii = |inside: &str, negated: bool| format!("[{}{inside}]", if negated { "^" } else { "" });
        match c {
            'd' | 'D' => self.out.push_str(&ascii("0-9", c == 'D')),
            'w' | 'W' => self.out.push_str(&ascii("0-9A-Za-z_", c == 'W')),
            's' | 'S' => self.out.push_str(&ascii(r"\t\n\f\r ", c == 'S')),
            'b' if !in_class => self.out.push_str(r"(?-u:\b)"),
            'Q' if !in_class => self.quoted(),
            'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'p' | 'P' => self.out.extend(['\\', c]),
            'A' | 'z' if !in_class => self.out.extend(['\\', c]),
            other if other.is_ascii_punctuation() => self.out.push_str(&regex::escape(&other.to_string())),
            other if !other.is_ascii() => self.out.push(other),
            other => return Err(format!("the escape \\{other}")),
        }
        Ok(())
    }

    /// `\Q...\E`: as it stands.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            self.out.push_str(&regex::escape(&c.to_string()));
        }
    }

    /// A bracketed class, whose opening bracket is read.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if self.rest.next_if_eq(&']').is_some() {
            self.out.push_str(r"\]");
        }
        while let Some(c) = self.rest.next() {
            match c {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => self.escape(true)?,
                '[' if self.rest.peek() == Some(&':') => {
                    self.out.push('[');
                    for c in self.rest.by_ref() {
                        self.out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
                '[' | '&' | '~' => self.out.extend(['\\', c]),
                '-' if self.rest.peek() == Some(&'-') => return Err("-- inside of a class".to_owned()),
                other => self.out.push(other),
            }
        }
        Err("a class is not closed".to_owned())
    }

    /// A group, whose opening parenthesis is read.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        let mut ahead = self.rest.clone();
        match ahead.next() {
            Some('P') => match ahead.next() {
                Some('<') => Ok(()),
                _ => Err("a group of this kind".to_owned()),
            },
            Some('<') if !matches!(ahead.next(), Some('=' | '!')) => Ok(()),
            _ => {
                for c in self.rest.by_ref() {
                    self.out.push(c);
                    match c {
                        ':' | ')' => return Ok(()),
                        'i' | 'm' | 's' | 'U' | '-' => {}
                        other => return Err(format!("the group flag {other}")),
                    }
                }
                Err("a group is not closed".to_owned())
            }
        }
    }
}
