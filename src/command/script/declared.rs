//! Whether a script's text proves that it touches only keys which it declares.
//!
//! It does if every key argument of every `redis.call` is `KEYS[…]`, or a name that is bound once, to `KEYS[…]` or by
//! `ipairs(KEYS)` or `ipairs` of a list of such, and nothing could change `KEYS`. Most scripts are like that, and run without
//! the guard. The proof errs on one side only: what it does not understand is not proven.
//!
//! A key that is not there ends a command, which cannot be given nothing; but from a table something else would move up to its place.
//! So such a key must be there, which is known once the script is called.

use std::collections::HashSet;

use super::super::CommandTable;
use super::super::spec::{Begin, Find, KeyFlags};
use super::calls::{Aliases, arguments, ends_statement};
use super::lua::Token;
use super::tables::{Call, Tables};

/// Most tokens between the brackets of a `KEYS[…]`, and between `function` and its parameters, that are looked at: without a
/// bound, some texts would be looked through again and again.
const INDEX_TOKENS_MAX: usize = 64;

/// Most names that are kept track of.
const NAMES_MAX: usize = 64;

/// A name that stands for a declared key, and for which one where that is known.
type NamedKey<'a> = (&'a [u8], Option<usize>);

/// Whether all keys that the script touches are declared ones, if it is given so many keys at least.
pub(super) fn only_declared(
    tokens: &[Token<'_>],
    aliases: &Aliases<'_>,
    commands: &CommandTable,
) -> Option<usize> {
    let names = names_of_keys(tokens)?;
    let tables = Tables::of(tokens);
    let containers = commands
        .iter()
        .filter_map(|c| Some(c.name.split_once('|')?.0))
        .collect();
    let mut needed = 0;
    for after in aliases.calls(tokens) {
        needed = needed.max(match (after, tables.call(after)) {
            (_, Some(call)) => call_is_declared(&call, &names, commands, &containers)?,
            ([Token::Mark(b'('), ..], None) => return None,
            // One text as its only argument, or the definition of another name.
            _ => 0,
        });
    }
    Some(needed)
}

/// The same of one call.
fn call_is_declared(
    call: &Call<'_, '_>,
    names: &[NamedKey<'_>],
    commands: &CommandTable,
    containers: &HashSet<&str>,
) -> Option<usize> {
    let name = String::from_utf8_lossy(call.name).to_ascii_lowercase();
    let (name, args) = (name.as_str(), call.args.as_slice());
    let command = commands.get(name)?;
    let all_keys = matches!(
        name,
        "keys" | "scan" | "randomkey" | "dbsize" | "sort" | "sort_ro" | "copy"
    );
    if all_keys || name.starts_with("georadius") {
        return None;
    }
    let command = match args.get(1) {
        _ if !containers.contains(name) => command,
        Some([Token::Text(sub)]) => {
            let sub = String::from_utf8_lossy(sub).to_ascii_lowercase();
            commands.get(&format!("{name}|{sub}"))?
        }
        _ => return None,
    };
    let mut needed = 0;
    let all = command
        .key_specs
        .iter()
        .filter(|spec| !spec.flags.contains(KeyFlags::NOT_KEY))
        .all(|spec| {
            let (
                Begin::Index(begin),
                Find::Range {
                    last,
                    step,
                    limit: 0 | 1,
                },
            ) = (&spec.begin, spec.find)
            else {
                return false;
            };
            let is_last = |at: usize| at + 1 == args.len();
            let mut is_declared = |at: usize, arg: &[Token<'_>]| match arg {
                [
                    Token::Word(b"unpack"),
                    Token::Mark(b'('),
                    Token::Word(b"KEYS"),
                    Token::Mark(b')'),
                ] => last == -1 && step == 1 && is_last(at),
                arg if call.from_table => {
                    let number = number_of_key(arg, names);
                    needed = needed.max(number.unwrap_or(0));
                    number.is_some()
                }
                arg => is_key(arg) || matches!(arg, [Token::Word(name)] if is_named(names, name)),
            };
            let end = match usize::try_from(last) {
                Ok(last) => (begin + last + 1).min(args.len()),
                Err(_) => (args.len() + 1).saturating_sub(last.unsigned_abs() as usize),
            };
            // An argument before the keys, or among them, must not be several.
            let single =
                |arg: &[Token<'_>]| is_key(arg) || matches!(arg, [Token::Text(_)] | [Token::Word(_)]);
            let before = args.iter().take(*begin).all(|arg| single(arg));
            let among = args.iter().enumerate().take(end).skip(*begin);
            let mut keys = among.clone().step_by(step.max(1));
            let rest_single = step <= 1 || args.iter().rev().take(1).all(|arg| !spreads(arg));
            before && rest_single && keys.all(|(at, arg)| is_declared(at, arg))
        });
    all.then_some(needed)
}

fn is_named(names: &[NamedKey<'_>], name: &[u8]) -> bool {
    names.iter().any(|(known, _)| *known == name)
}

/// Which declared key it is, if that is written out.
fn number_of_key(arg: &[Token<'_>], names: &[NamedKey<'_>]) -> Option<usize> {
    match arg {
        [
            Token::Word(b"KEYS"),
            Token::Mark(b'['),
            Token::Word(number),
            Token::Mark(b']'),
        ] => std::str::from_utf8(number).ok()?.parse().ok().filter(|&n| n > 0),
        [Token::Word(name)] => names.iter().find(|(known, _)| known == name)?.1,
        _ => None,
    }
}

fn spreads(arg: &[Token<'_>]) -> bool {
    arg.last() == Some(&Token::Mark(b')')) || arg.contains(&Token::Mark(b'.'))
}

/// `KEYS[…]`, and nothing else.
fn is_key(arg: &[Token<'_>]) -> bool {
    let [
        Token::Word(b"KEYS"),
        Token::Mark(b'['),
        inside @ ..,
        Token::Mark(b']'),
    ] = arg
    else {
        return false;
    };
    let mut depth = 0_i32;
    inside.iter().all(|token| {
        match token {
            Token::Mark(b'[') => depth += 1,
            Token::Mark(b']') => depth -= 1,
            _ => {}
        }
        depth >= 0
    })
}

/// The names that stand for a declared key and nothing else; `None` if `KEYS` itself may be changed.
fn names_of_keys<'a>(tokens: &[Token<'a>]) -> Option<Vec<NamedKey<'a>>> {
    let bound = bindings(tokens)?;
    let times = |name: &[u8]| bound.iter().filter(|other| **other == name).count();
    if [&b"KEYS"[..], b"ipairs", b"pairs", b"unpack"]
        .iter()
        .any(|name| times(name) > 0)
    {
        return None;
    }
    let mut names = Vec::new();
    for at in 0..tokens.len() {
        let rest = tokens.get(at..).unwrap_or_default();
        match rest {
            [Token::Word(b"local"), after @ ..] => names.extend(defined(after)),
            [
                Token::Word(b"for"),
                Token::Word(_),
                Token::Mark(b','),
                Token::Word(name),
                Token::Word(b"in"),
                Token::Word(b"ipairs" | b"pairs"),
                Token::Mark(b'('),
                Token::Word(b"KEYS"),
                Token::Mark(b')'),
                ..,
            ] => names.push((*name, None)),
            [Token::Word(b"KEYS"), after @ ..]
                if !is_harmless(tokens.get(..at).unwrap_or_default(), after) =>
            {
                return None;
            }
            _ => {}
        }
        if names.len() > NAMES_MAX {
            return None;
        }
    }
    names.retain(|(name, _)| times(name) == 1);
    let mut listed = names_in_lists(tokens, &names);
    listed.retain(|(name, _)| times(name) == 1);
    names.append(&mut listed);
    Some(names)
}

/// The names in loops over a list that is written out, as in `for _, name in ipairs({a, KEYS[2]})`, of declared keys only.
fn names_in_lists<'a>(tokens: &[Token<'a>], names: &[NamedKey<'_>]) -> Vec<NamedKey<'a>> {
    let is_declared =
        |item: &&[Token<'_>]| is_key(item) || matches!(item, [Token::Word(name)] if is_named(names, name));
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let [
            Token::Word(b"for"),
            Token::Word(_),
            Token::Mark(b','),
            Token::Word(name),
            Token::Word(b"in"),
            Token::Word(b"ipairs" | b"pairs"),
            Token::Mark(b'('),
            Token::Mark(b'{'),
            inside @ ..,
        ] = tokens.get(at..).unwrap_or_default()
        else {
            continue;
        };
        let items = arguments(inside).unwrap_or_default();
        // With the commas between them.
        let length = (items.iter().map(|item| item.len()).sum::<usize>() + items.len()).saturating_sub(1);
        let closed = inside.get(length..).unwrap_or_default();
        if matches!(closed, [Token::Mark(b'}'), Token::Mark(b')'), ..])
            && !items.is_empty()
            && items.iter().all(is_declared)
            && found.len() < NAMES_MAX
        {
            found.push((*name, None));
        }
    }
    found
}

/// Whether a use of `KEYS` only reads it, given what is before and behind.
fn is_harmless(before: &[Token<'_>], after: &[Token<'_>]) -> bool {
    match (before, after) {
        ([.., Token::Mark(b'#')], _) => !matches!(after, [Token::Mark(b'['), ..]),
        (_, [Token::Mark(b'['), inside @ ..]) => match closing(inside) {
            // Not given another value.
            Some([Token::Mark(b'='), Token::Mark(b'='), ..]) => true,
            Some([Token::Mark(b'=' | b','), ..]) => {
                matches!(before, [.., Token::Mark(b'(' | b',' | b'=' | b'{')]) && !is_assignment(inside)
            }
            Some(_) => true,
            None => false,
        },
        ([.., Token::Word(b"unpack"), Token::Mark(b'(')], [Token::Mark(b')'), ..]) => true,
        (
            [
                ..,
                Token::Word(b"for"),
                Token::Word(_),
                Token::Mark(b','),
                Token::Word(_),
                Token::Word(b"in"),
                Token::Word(b"ipairs" | b"pairs"),
                Token::Mark(b'('),
            ],
            [Token::Mark(b')'), ..],
        ) => true,
        _ => false,
    }
}

/// Whether what follows the closing bracket is `=`.
fn is_assignment(inside: &[Token<'_>]) -> bool {
    matches!(closing(inside), Some([Token::Mark(b'='), ..]))
}

/// What is behind the bracket that closes the one before `inside`.
fn closing<'t, 'a>(inside: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let mut depth = 0_usize;
    for (at, token) in inside.iter().enumerate().take(INDEX_TOKENS_MAX) {
        match token {
            Token::Mark(b'[') => depth += 1,
            Token::Mark(b']') if depth == 0 => return inside.get(at + 1..),
            Token::Mark(b']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The names of a `local a, b = KEYS[1], KEYS[2]` that are given a key each, from behind `local` on.
fn defined<'a>(after: &[Token<'a>]) -> Vec<NamedKey<'a>> {
    let mut names = Vec::new();
    let mut rest = after;
    while let [Token::Word(name), behind @ ..] = rest {
        names.push((*name, None));
        match behind {
            [Token::Mark(b','), behind @ ..] => rest = behind,
            [Token::Mark(b'='), behind @ ..] => {
                rest = behind;
                break;
            }
            _ => return Vec::new(),
        }
    }
    let mut given = 0;
    while let [Token::Word(b"KEYS"), Token::Mark(b'['), inside @ ..] = rest
        && let Some(behind) = closing(inside)
    {
        let is_last = match behind {
            [Token::Mark(b','), ..] => false,
            _ if ends_statement(behind.first()) => true,
            _ => break,
        };
        if let Some((_, number)) = names.get_mut(given) {
            *number = number_of_key(rest.get(..4).unwrap_or_default(), &[]);
        }
        given += 1;
        if is_last {
            break;
        }
        rest = behind.get(1..).unwrap_or_default();
    }
    names.truncate(given);
    names
}

/// Every name as often as something binds it; `None` if that is too hard to tell: an assignment, a `local`, a loop, a parameter, a function.
pub(super) fn bindings<'a>(tokens: &[Token<'a>]) -> Option<Vec<&'a [u8]>> {
    let mut bound = Vec::new();
    for at in 0..tokens.len() {
        let (before, rest) = tokens.split_at_checked(at).unwrap_or((tokens, &[]));
        match rest {
            [Token::Mark(b'='), after @ ..]
                if !matches!(after.first(), Some(Token::Mark(b'=')))
                    && !matches!(before.last(), Some(Token::Mark(b'=' | b'<' | b'>' | b'~'))) =>
            {
                let mut names = before;
                while let [earlier @ .., Token::Word(name)] = names {
                    bound.push(*name);
                    match earlier {
                        [earlier @ .., Token::Mark(b',')] => names = earlier,
                        _ => break,
                    }
                }
            }
            [
                Token::Word(b"local"),
                Token::Word(b"function"),
                Token::Word(name),
                ..,
            ] => bound.push(name),
            [Token::Word(b"local"), after @ ..] if !is_given_value(after) => bound.extend(list(after)),
            [Token::Word(b"for"), after @ ..] => bound.extend(list(after)),
            [Token::Word(b"function"), after @ ..] => {
                let mut near = after.iter().take(INDEX_TOKENS_MAX);
                let opened = near.position(|token| *token == Token::Mark(b'('))?;
                let (name, params) = after.split_at_checked(opened)?;
                bound.extend(list(name));
                bound.extend(list(params.get(1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    Some(bound)
}

/// Whether a list of names is followed by `=`, where it is counted.
fn is_given_value(after: &[Token<'_>]) -> bool {
    let mut rest = after;
    while let [Token::Word(_), behind @ ..] = rest {
        match behind {
            [Token::Mark(b','), behind @ ..] => rest = behind,
            [Token::Mark(b'='), ..] => return true,
            _ => return false,
        }
    }
    false
}

/// The names of `a, b, c`.
fn list<'a>(after: &[Token<'a>]) -> Vec<&'a [u8]> {
    let mut names = Vec::new();
    let mut rest = after;
    while let [Token::Word(name), behind @ ..] = rest {
        names.push(*name);
        match behind {
            [Token::Mark(b','), behind @ ..] => rest = behind,
            _ => break,
        }
    }
    names
}
