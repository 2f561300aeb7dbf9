//! Calls in a script's text: the arguments of one, and the names that `redis.call` goes by.

use super::lua::Token;

/// Whether a `SET` surely sets no relative expiry. Its options must be there to be read.
pub(super) fn set_is_absolute(args: &[&[Token<'_>]]) -> bool {
    let [_, key, value, options @ ..] = args else {
        return false;
    };
    if spreads(key) || spreads(value) || (options.is_empty() && may_be_several(value)) {
        return false;
    }
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let [Token::Text(option)] = option else {
            return false;
        };
        match option.to_ascii_lowercase().as_slice() {
            b"nx" | b"xx" | b"get" | b"keepttl" => {}
            b"exat" | b"pxat" if options.next().is_some_and(|time| is_one(time)) => {}
            _ => return false,
        }
    }
    true
}

/// Whether an argument surely is one value.
pub(super) fn is_one(arg: &[Token<'_>]) -> bool {
    !spreads(arg) && !may_be_several(arg)
}

/// Whether an argument becomes as many as a table or the caller had.
fn spreads(arg: &[Token<'_>]) -> bool {
    arg.contains(&Token::Word(b"unpack")) || arg.starts_with(&[Token::Mark(b'.'), Token::Mark(b'.')])
}

/// Whether an argument is a call of something that may return several values.
fn may_be_several(arg: &[Token<'_>]) -> bool {
    arg.last() == Some(&Token::Mark(b')')) && !is_one_of_ours(arg) && !is_computed(arg)
}

/// Whether an argument is one call of a function that is known to return one value.
fn is_one_of_ours(arg: &[Token<'_>]) -> bool {
    let given = match arg {
        [Token::Word(b"tostring" | b"tonumber"), given @ ..] => given,
        [
            Token::Word(library),
            Token::Mark(b'.'),
            Token::Word(name),
            given @ ..,
        ] => {
            let names: &[&[u8]] = match *library {
                b"cjson" => &[b"encode", b"decode"],
                b"cmsgpack" | b"struct" => &[b"pack"],
                b"string" => &[
                    b"format", b"sub", b"lower", b"upper", b"rep", b"reverse", b"len", b"char",
                ],
                b"math" => &[
                    b"floor", b"ceil", b"abs", b"max", b"min", b"random", b"fmod", b"pow", b"sqrt",
                ],
                b"table" => &[b"concat"],
                b"redis" => &[b"call", b"pcall", b"sha1hex", b"error_reply", b"status_reply"],
                _ => &[],
            };
            match names.contains(name) {
                true => given,
                false => return false,
            }
        }
        _ => return false,
    };
    let [Token::Mark(b'('), inside @ .., Token::Mark(b')')] = given else {
        return false;
    };
    // Nothing is called that the call has returned.
    let mut depth = 0_usize;
    inside.iter().all(|token| match token {
        Token::Mark(b'(') => {
            depth += 1;
            true
        }
        Token::Mark(b')') => depth.checked_sub(1).map(|less| depth = less).is_some(),
        _ => true,
    })
}

/// Whether one of Lua's own functions that are taken for what they are may be something else here: its name, or its library's, stands
/// elsewhere than where it is used.
pub(super) fn renames_natives(tokens: &[Token<'_>]) -> bool {
    let is_used = |word: &[u8], after: &[Token<'_>]| match word {
        b"tostring" | b"tonumber" | b"unpack" => after.first() == Some(&Token::Mark(b'(')),
        b"cjson" | b"cmsgpack" | b"struct" | b"string" | b"math" | b"table" => match after {
            [Token::Mark(b'.'), Token::Word(_), Token::Mark(b'='), next, ..] => *next == Token::Mark(b'='),
            after => after.first() == Some(&Token::Mark(b'.')),
        },
        _ => true,
    };
    (0..tokens.len()).any(|at| {
        let (before, rest) = tokens.split_at(at);
        match (before, rest) {
            ([.., Token::Mark(b'.' | b':')], _) => false,
            ([.., Token::Word(b"function")], [Token::Word(word), ..]) => !is_used(word, &[]),
            (_, [Token::Word(word), after @ ..]) => !is_used(word, after),
            _ => false,
        }
    })
}

/// Whether an operator makes the argument one value.
fn is_computed(arg: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    arg.iter().any(|token| {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_operator = matches!(
            token,
            Token::Mark(b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'#' | b'=' | b'<' | b'>')
                | Token::Word(b"and" | b"or" | b"not")
        );
        depth == 0 && is_operator
    })
}

/// Whether a stream entry's id is written out in full.
pub(super) fn is_entry_id(id: &[u8]) -> bool {
    let mut parts = id.split(|&byte| byte == b'-');
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

/// The arguments of a call, from behind its opening bracket on.
pub(super) fn arguments<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<Vec<&'t [Token<'a>]>> {
    let tokens = tokens.get(..CALL_TOKENS_MAX).unwrap_or(tokens);
    let mut depth = 0_usize;
    let mut end = None;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') if depth == 0 => {
                end = Some(i);
                break;
            }
            Token::Mark(b')' | b'}' | b']') => depth -= 1,
            _ => {}
        }
    }
    let (inside, _) = tokens.split_at_checked(end?)?;
    let arguments = inside.split(|token| {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::Mark(b',')
    });
    Some(arguments.collect())
}

/// Most tokens of one call that are looked at: without a bound, calls within calls would be looked at again and again.
const CALL_TOKENS_MAX: usize = 256;

/// Most other names of `redis.call` that are kept track of.
const ALIASES_MAX: usize = 16;

/// Another name of `redis.call`.
struct Alias<'a> {
    name: &'a [u8],
    /// Which token the `redis` is that it is defined by.
    value: usize,
}

/// The names under which `redis.call` also goes: `local call = redis.call`. A local name cannot be reached by its text.
pub(super) struct Aliases<'a>(Vec<Alias<'a>>);

impl<'a> Aliases<'a> {
    /// Finds them.
    pub(super) fn of(tokens: &[Token<'a>]) -> Self {
        let mut aliases = Vec::new();
        let mut rest = tokens;
        while let Some((_, behind)) = rest.split_first() {
            if let [
                Token::Word(b"local"),
                Token::Word(name),
                Token::Mark(b'='),
                Token::Word(b"redis" | b"server"),
                Token::Mark(b'.'),
                Token::Word(b"call" | b"pcall"),
                after @ ..,
            ] = rest
                && ends_statement(after.first())
            {
                aliases.push(Alias {
                    name,
                    value: tokens.len() - rest.len() + 3,
                });
            }
            rest = behind;
        }
        Self(aliases)
    }

    /// Whether there are more than can be kept track of.
    pub(super) fn too_many(&self) -> bool {
        self.0.len() > ALIASES_MAX
    }

    /// Whether this is one of them.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|alias| alias.name == name)
    }

    /// Whether the `redis` at this token defines one.
    pub(super) fn defined_at(&self, at: usize) -> bool {
        self.0.iter().any(|alias| alias.value == at)
    }

    /// What follows each use of `redis.call`, under whatever name.
    pub(super) fn calls<'t>(&self, tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
        (0..tokens.len()).filter_map(move |at| match tokens.get(at..)? {
            [
                Token::Word(b"redis"),
                Token::Mark(b'.'),
                Token::Word(b"call" | b"pcall"),
                after @ ..,
            ] => Some(after),
            [Token::Word(name), after @ ..] if self.has(name) => Some(after),
            _ => None,
        })
    }
}

/// Whether an expression ends before this token, so that what was before it is the whole of it.
pub(super) fn ends_statement(token: Option<&Token<'_>>) -> bool {
    match token {
        None | Some(Token::Mark(b';')) => true,
        Some(Token::Word(word)) => !matches!(*word, b"and" | b"or"),
        Some(_) => false,
    }
}
