//! Functions: libraries by name, and what each registers.
//!
//! To the nodes, every version of a library is another library: it is called after the digest of its text, and so are its
//! functions (`rf_<digest>_<function>`). So a stream can give it to its node whenever it needs it, like a script, and no slower
//! stream can bring an old version back. Clients see the names that they gave. A version that has been replaced stays on the
//! nodes, where nothing calls it any more, as an unused script does.
//!
//! A library's upvalues are each server's own; one that counts calls in them counts on each node for itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Judge, hex, sha_of};
use crate::command::script::prelude::Parts;
use crate::command::script::{payload, shebang};
use crate::request::Script;
use crate::resp::encode;

/// What the libraries are called by on the nodes, before the digest.
pub const PREFIX: &str = "rf_";

/// A function as its library has registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: Bytes,
    /// What its author says of it.
    pub description: Option<Bytes>,
    /// Its flags: `no-writes`, ….
    pub flags: Vec<Bytes>,
}

/// One version of a library.
#[derive(Debug)]
pub struct FunctionLibrary {
    /// Its name.
    pub name: Bytes,
    /// Its text, as the client gave it.
    pub text: Bytes,
    /// What it registers.
    pub functions: Vec<Function>,
    /// What is in front of it.
    pub parts: Parts,
    /// How a node is given it.
    pub script: Arc<Script>,
    /// What is before its functions' names on the nodes.
    pub prefix: String,
}

impl FunctionLibrary {
    /// A library that a node has compiled and that registers these functions.
    ///
    /// # Errors
    /// Why it cannot be used in a pool: an error line.
    pub fn new(judge: &Judge, text: Bytes, functions: Vec<Function>) -> Result<Self, &'static str> {
        let digest = hex(&sha_of(&text));
        let (name, prefix) = (format!("{PREFIX}{digest}"), format!("{PREFIX}{digest}_"));
        let (on_nodes, parts) = judge.library(&text, &name, &prefix)?;
        Ok(Self {
            name: name_of(&text),
            functions,
            parts,
            script: Arc::new(Script {
                sha: sha_of(&on_nodes),
                load: encode::command_frame(&[b"FUNCTION", b"LOAD", b"REPLACE", &on_nodes]),
            }),
            prefix,
            text,
        })
    }
}

/// The name that a library's first line gives it.
pub fn name_of(text: &[u8]) -> Bytes {
    let name = shebang(text).and_then(|line| line.name).unwrap_or_default();
    Bytes::copy_from_slice(name)
}

/// All functions of the pool.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    libraries: BTreeMap<Bytes, Arc<FunctionLibrary>>,
    by_name: HashMap<Bytes, Arc<FunctionLibrary>>,
}

impl Functions {
    /// The library that has the function.
    pub fn find(&self, function: &[u8]) -> Option<&Arc<FunctionLibrary>> {
        self.by_name.get(function)
    }

    /// Whether there is a library of this name.
    pub fn has_library(&self, name: &[u8]) -> bool {
        self.libraries.contains_key(name)
    }

    /// Takes a library in, in the place of one of the same name.
    ///
    /// # Errors
    /// The name of a function that another library has.
    pub fn insert(&mut self, library: FunctionLibrary) -> Result<(), Bytes> {
        let taken = |f: &&Function| self.find(&f.name).is_some_and(|other| other.name != library.name);
        if let Some(function) = library.functions.iter().find(taken) {
            return Err(function.name.clone());
        }
        self.remove(&library.name);
        let library = Arc::new(library);
        for function in &library.functions {
            self.by_name.insert(function.name.clone(), library.clone());
        }
        self.libraries.insert(library.name.clone(), library);
        Ok(())
    }

    /// Takes a library out. Whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.by_name.retain(|_, library| library.name != name);
        self.libraries.remove(name).is_some()
    }

    /// All libraries.
    pub fn libraries(&self) -> impl Iterator<Item = &FunctionLibrary> {
        self.libraries.values().map(Arc::as_ref)
    }

    /// Their texts, by name.
    pub fn texts(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.libraries.iter().map(|(name, library)| (name, &library.text))
    }

    /// `FUNCTION DUMP`.
    pub fn dump(&self) -> Bytes {
        encode::bulk_frame(&payload::dump(self.texts().map(|(_, text)| &text[..])))
    }

    /// `FUNCTION STATS`. What runs at the moment is the nodes' business.
    pub fn stats(&self, resp3: bool) -> Bytes {
        let mut out = BytesMut::new();
        map(&mut out, 2, resp3);
        encode::bulk(&mut out, b"running_script");
        out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
        encode::bulk(&mut out, b"engines");
        map(&mut out, 1, resp3);
        encode::bulk(&mut out, b"LUA");
        map(&mut out, 2, resp3);
        for (name, count) in [
            ("libraries_count", self.libraries.len()),
            ("functions_count", self.by_name.len()),
        ] {
            encode::bulk(&mut out, name.as_bytes());
            out.extend_from_slice(&encode::integer(count as i64));
        }
        out.freeze()
    }

    /// `FUNCTION LIST`, of the libraries whose names are like `wanted`.
    pub fn list(&self, wanted: impl Fn(&[u8]) -> bool, with_code: bool, resp3: bool) -> Bytes {
        let chosen: Vec<_> = self
            .libraries
            .values()
            .filter(|library| wanted(&library.name))
            .collect();
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', chosen.len());
        for library in chosen {
            map(&mut out, if with_code { 4 } else { 3 }, resp3);
            encode::bulk(&mut out, b"library_name");
            encode::bulk(&mut out, &library.name);
            encode::bulk(&mut out, b"engine");
            encode::bulk(&mut out, b"LUA");
            encode::bulk(&mut out, b"functions");
            encode::header(&mut out, b'*', library.functions.len());
            for function in &library.functions {
                map(&mut out, 3, resp3);
                encode::bulk(&mut out, b"name");
                encode::bulk(&mut out, &function.name);
                encode::bulk(&mut out, b"description");
                match &function.description {
                    Some(text) => encode::bulk(&mut out, text),
                    None => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
                }
                encode::bulk(&mut out, b"flags");
                encode::header(&mut out, if resp3 { b'~' } else { b'*' }, function.flags.len());
                for flag in &function.flags {
                    out.extend_from_slice(b"+");
                    out.extend_from_slice(flag);
                    out.extend_from_slice(b"\r\n");
                }
            }
            if with_code {
                encode::bulk(&mut out, b"library_code");
                encode::bulk(&mut out, &library.text);
            }
        }
        out.freeze()
    }
}

fn map(out: &mut BytesMut, pairs: usize, resp3: bool) {
    match resp3 {
        true => encode::header(out, b'%', pairs),
        false => encode::header(out, b'*', pairs * 2),
    }
}
