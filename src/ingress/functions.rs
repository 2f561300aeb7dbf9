//! `FUNCTION …`: libraries that come, go, and are listed.
//!
//! A change is tried out on one node, kept by a majority of them, and only then made. The nodes that execute functions are
//! given them by their streams (see [`crate::library::functions`]).

use std::rc::Rc;

use bytes::Bytes;

use super::dispatch::Flow;
use super::scripts::{NOT_KEPT, OK, is_flush, said};
use crate::command::Special;
use crate::command::script::payload;
use crate::command::spec::Downgrade;
use crate::library::functions::{FunctionLibrary, Functions, PREFIX, name_of};
use crate::pool::shelf::{Change, library_field};
use crate::resp::{Args, encode};
use crate::shared::Shared;
use crate::worker::{Core, Worker};

const NO_NODE: &str =
    "NOREPLICAS No node can look at the library at the moment. See /v1/nodes on the admin port.";
const RESERVED: &str = "ERR names of libraries that begin with rf_ are the proxy's own";

/// A change of functions.
enum Wanted {
    Load { text: Bytes, replace: bool },
    Delete(Bytes),
    Flush,
    Restore { texts: Vec<Bytes>, policy: Policy },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Append,
    Flush,
    Replace,
}

impl Worker {
    pub(super) fn change_functions(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        special: Special,
        args: &Args<'_>,
    ) -> Flow {
        let wanted = match wanted(special, args) {
            Ok(wanted) => wanted,
            Err(line) => return self.refuse(core, id, &line),
        };
        self.proceed(core, id, Downgrade::Generic, move |procedure| async move {
            let done = change(procedure.worker.shared(), wanted).await;
            (procedure, said(done))
        })
    }

    /// What is answered at once.
    pub(super) fn function_reply(&self, special: Special, args: &Args<'_>, resp3: bool) -> Bytes {
        let functions = self.shared().library.functions();
        match special {
            Special::FunctionStats => functions.stats(resp3),
            Special::FunctionDump => functions.dump(),
            Special::FunctionList => match listed(args) {
                Ok((pattern, with_code)) => {
                    let like = |name: &[u8]| pattern.as_ref().is_none_or(|pattern| is_like(pattern, name));
                    functions.list(like, with_code, resp3)
                }
                Err(line) => encode::error(&line),
            },
            _ => encode::error("ERR unknown subcommand"),
        }
    }
}

/// What a command asks for.
fn wanted(special: Special, args: &Args<'_>) -> Result<Wanted, String> {
    let copy = |at: usize| Bytes::copy_from_slice(args.arg(at));
    match special {
        Special::FunctionDelete => Ok(Wanted::Delete(copy(2))),
        Special::FunctionFlush if is_flush(args, 2) => Ok(Wanted::Flush),
        Special::FunctionFlush if args.len() > 3 => {
            Err("ERR unknown subcommand or wrong number of arguments for 'FLUSH'. Try FUNCTION HELP.".into())
        }
        Special::FunctionFlush => Err("ERR FUNCTION FLUSH only supports SYNC|ASYNC option".into()),
        Special::FunctionRestore => {
            let policy = match args.get(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
                _ if args.len() > 4 => {
                    return Err(
                        "ERR unknown subcommand or wrong number of arguments for 'RESTORE'. Try FUNCTION HELP.".into(),
                    );
                }
                None | Some(b"append") => Policy::Append,
                Some(b"flush") => Policy::Flush,
                Some(b"replace") => Policy::Replace,
                _ => {
                    return Err(
                        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE."
                            .into(),
                    );
                }
            };
            let texts = payload::parse(args.arg(2)).map_err(|error| error.to_string())?;
            let texts = texts.into_iter().map(Bytes::from).collect();
            Ok(Wanted::Restore { texts, policy })
        }
        _ => {
            let last = args.len() - 1;
            let mut replace = false;
            for option in args.iter().take(last).skip(2) {
                if !option.eq_ignore_ascii_case(b"replace") {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Unknown option given: {option}"));
                }
                replace = true;
            }
            Ok(Wanted::Load {
                text: copy(last),
                replace,
            })
        }
    }
}

/// Makes the change: the reply, or an error line.
async fn change(shared: &Shared, wanted: Wanted) -> Result<Bytes, String> {
    let _changing = shared.library.changing.lock().await;
    let mut functions = Functions::clone(&shared.library.functions());
    let mut reply = OK;
    match wanted {
        Wanted::Load { text, replace } => {
            let library = compile(shared, text).await?;
            if !replace && functions.has_library(&library.name) {
                let name = String::from_utf8_lossy(&library.name);
                return Err(format!("ERR Library '{name}' already exists"));
            }
            reply = encode::bulk_frame(&library.name);
            insert(&mut functions, library)?;
        }
        Wanted::Delete(name) => {
            if !functions.remove(&name) {
                return Err("ERR Library not found".into());
            }
        }
        Wanted::Flush => functions = Functions::default(),
        Wanted::Restore { texts, policy } => {
            if policy == Policy::Flush {
                functions = Functions::default();
            }
            for text in texts {
                let library = compile(shared, text).await?;
                if policy != Policy::Replace && functions.has_library(&library.name) {
                    let name = String::from_utf8_lossy(&library.name);
                    return Err(format!("ERR Library {name} already exists"));
                }
                insert(&mut functions, library)?;
            }
        }
    }
    let kept = functions
        .texts()
        .map(|(name, text)| (library_field(name), Some(text.clone())));
    let kept: Change = kept.collect();
    let safe = shared.keeper.keep(|shelf| {
        // A library that stays as it is need not be written again.
        let gone = shelf
            .without(b'f')
            .into_iter()
            .filter(|(field, _)| !kept.iter().any(|(other, _)| other == field));
        let new = kept
            .iter()
            .filter(|(field, text)| shelf.get(field) != text.as_ref())
            .cloned();
        gone.chain(new).collect()
    });
    if !safe.await {
        return Err(NOT_KEPT.into());
    }
    shared.library.set_functions(functions);
    Ok(reply)
}

fn insert(functions: &mut Functions, library: FunctionLibrary) -> Result<(), String> {
    let taken = |name: Bytes| format!("ERR Function {} already exists", String::from_utf8_lossy(&name));
    functions.insert(library).map_err(taken)
}

/// The library of this text, by a node's judgement and ours.
async fn compile(shared: &Shared, text: Bytes) -> Result<FunctionLibrary, String> {
    if name_of(&text).starts_with(PREFIX.as_bytes()) {
        return Err(RESERVED.into());
    }
    let functions = shared
        .keeper
        .compile(&text)
        .await
        .map_err(|why| why.unwrap_or_else(|| NO_NODE.into()))?;
    Ok(FunctionLibrary::new(&shared.library.judge, text, functions)?)
}

/// The options of `FUNCTION LIST`: a pattern for the libraries' names, and whether to show their texts.
fn listed(args: &Args<'_>) -> Result<(Option<Bytes>, bool), String> {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = args.iter().skip(2);
    while let Some(word) = words.next() {
        if !with_code && word.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && word.eq_ignore_ascii_case(b"libraryname") {
            let Some(given) = words.next() else {
                return Err("ERR library name argument was not given".into());
            };
            pattern = Some(Bytes::copy_from_slice(given));
        } else {
            return Err(format!("ERR Unknown argument {}", String::from_utf8_lossy(word)));
        }
    }
    Ok((pattern, with_code))
}

/// Whether a library's name, which has only letters, digits and `_`, is like a pattern of `*`, `?` and such, in either case.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'*', rest @ ..], name) => {
            let mut tail = name;
            loop {
                if is_like(rest, tail) {
                    return true;
                }
                match tail.split_first() {
                    Some((_, shorter)) => tail = shorter,
                    None => return false,
                }
            }
        }
        ([b'?', rest @ ..], [_, name @ ..]) => is_like(rest, name),
        ([b'\\', literal, rest @ ..] | [literal, rest @ ..], [first, name @ ..]) => {
            literal.eq_ignore_ascii_case(first) && is_like(rest, name)
        }
        (_, []) => false,
    }
}
