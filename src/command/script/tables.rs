//! Commands that a script puts together in a table, as in `local t = {'ZADD', key}`, `t[#t + 1] = id`, `redis.call(unpack(t))`.
//!
//! What such a command begins with can be told if the table is made in one place, with the command's name first, and if nothing is done
//! to it afterwards but that it is read and that more is appended. So each use of its name must be one of a few that are understood.

use super::calls::{arguments, ends_statement, is_one};
use super::declared::bindings;
use super::lua::Token;

/// Most of them that are kept track of.
const TABLES_MAX: usize = 16;

/// Tables that hold a command each, and may have grown behind what they were made with.
#[derive(Default)]
pub(super) struct Tables<'t, 'a>(Vec<Table<'t, 'a>>);

struct Table<'t, 'a> {
    name: &'a [u8],
    /// What it is made with, the command's name first.
    items: Vec<&'t [Token<'a>]>,
}

/// A call of a command whose name can be told.
pub(super) struct Call<'t, 'a> {
    pub(super) name: &'a [u8],
    /// The name first. The last may become as many as there are.
    pub(super) args: Vec<&'t [Token<'a>]>,
    /// Arguments come from a table: behind one that is not there, others may move up.
    pub(super) from_table: bool,
}

impl<'t, 'a> Tables<'t, 'a> {
    /// Finds them.
    pub(super) fn of(tokens: &'t [Token<'a>]) -> Self {
        let mut made: Vec<Table<'t, 'a>> = (0..tokens.len())
            .filter_map(|at| Table::made_by(tokens.get(at..)?))
            .take(TABLES_MAX)
            .collect();
        if made.is_empty() {
            return Self::default();
        }
        let Some(bound) = bindings(tokens) else {
            return Self::default();
        };
        let times = |name: &[u8]| bound.iter().filter(|other| **other == name).count();
        if [&b"unpack"[..], b"table", b"insert"]
            .iter()
            .any(|name| times(name) > 0)
        {
            return Self::default();
        }
        made.retain(|table| {
            let mut uses = (0..tokens.len()).filter(|&at| tokens.get(at) == Some(&Token::Word(table.name)));
            times(table.name) == 1 && uses.all(|at| keeps_its_beginning(tokens, at))
        });
        Self(made)
    }

    /// The command that is called, given what follows `redis.call`; `None` if it cannot be told.
    pub(super) fn call(&self, after: &'t [Token<'a>]) -> Option<Call<'t, 'a>> {
        match after {
            [Token::Mark(b'('), Token::Text(name), Token::Mark(b')' | b','), ..] => Some(Call {
                name,
                args: arguments(after.get(1..)?)?,
                from_table: false,
            }),
            [
                Token::Mark(b'('),
                Token::Word(b"unpack"),
                Token::Mark(b'('),
                Token::Word(name),
                Token::Mark(b')'),
                Token::Mark(b')'),
                ..,
            ] => {
                let table = self.0.iter().find(|table| table.name == *name)?;
                let Some([Token::Text(command)]) = table.items.first() else {
                    return None;
                };
                let mut args = table.items.clone();
                args.push(after.get(1..5)?);
                Some(Call {
                    name: command,
                    args,
                    from_table: true,
                })
            }
            _ => None,
        }
    }
}

impl<'t, 'a> Table<'t, 'a> {
    /// The one that is made here: `local t = {'NAME', a, KEYS[1], …}`, of single values only.
    fn made_by(rest: &'t [Token<'a>]) -> Option<Self> {
        let [
            Token::Word(b"local"),
            Token::Word(name),
            Token::Mark(b'='),
            Token::Mark(b'{'),
            inside @ ..,
        ] = rest
        else {
            return None;
        };
        let items = arguments(inside)?;
        let is_single = |item: &&[Token<'_>]| {
            matches!(
                item,
                [Token::Text(_) | Token::Word(_)]
                    | [
                        Token::Word(_),
                        Token::Mark(b'['),
                        Token::Word(_),
                        Token::Mark(b']')
                    ]
            )
        };
        let has_name = matches!(items.first(), Some([Token::Text(_)]));
        // With the commas between them.
        let length = items
            .iter()
            .map(|item| item.len() + 1)
            .sum::<usize>()
            .checked_sub(1)?;
        let is_whole =
            inside.get(length) == Some(&Token::Mark(b'}')) && ends_statement(inside.get(length + 1));
        (has_name && is_whole && items.iter().all(is_single)).then_some(Self { name, items })
    }
}

/// Whether the use of a table's name at this place leaves what the table was made with as it is.
fn keeps_its_beginning(tokens: &[Token<'_>], at: usize) -> bool {
    let (before, rest) = tokens.split_at_checked(at).unwrap_or((tokens, &[]));
    match (before, rest) {
        // Where it is made.
        ([.., Token::Word(b"local")], [_, Token::Mark(b'='), Token::Mark(b'{'), ..]) => true,
        // How long it is.
        ([.., Token::Mark(b'#')], [_, after @ ..]) => !matches!(after, [Token::Mark(b'[' | b'.' | b':'), ..]),
        // `t[#t + 1] = …`.
        (
            _,
            [
                Token::Word(name),
                Token::Mark(b'['),
                Token::Mark(b'#'),
                Token::Word(of),
                Token::Mark(b'+'),
                Token::Word(b"1"),
                Token::Mark(b']'),
                Token::Mark(b'='),
                ..,
            ],
        ) => name == of && !is_of_something(before),
        // `unpack(t)`.
        ([before @ .., Token::Word(b"unpack"), Token::Mark(b'(')], [_, Token::Mark(b')'), ..]) => {
            !is_of_something(before)
        }
        // `table.insert(t, …)`, at its end.
        (
            [
                before @ ..,
                Token::Word(b"table"),
                Token::Mark(b'.'),
                Token::Word(b"insert"),
                Token::Mark(b'('),
            ],
            [_, Token::Mark(b','), ..],
        ) => {
            !is_of_something(before)
                && arguments(rest).is_some_and(|args| matches!(args.as_slice(), [_, one] if is_one(one)))
        }
        _ => false,
    }
}

/// Whether a name behind this is a field's.
fn is_of_something(before: &[Token<'_>]) -> bool {
    matches!(before, [.., Token::Mark(b'.' | b':')])
}
