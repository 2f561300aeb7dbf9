//! Function libraries of one node: trying a new one out, and finding those that were there before the pool.

use redis_protocol::resp3::types::BytesFrame;

use super::control::{Control, ControlError, bytes_of, is_error, pairs_of, text_of};
use crate::library::functions::{Function, PREFIX, name_of};

/// Has the node compile a library, and nothing left of it: what it registers, or the node's words.
///
/// # Errors
/// [`ControlError::Refused`]: the library is wrong.
pub async fn compile(control: &mut Control, text: &[u8]) -> Result<Vec<Function>, ControlError> {
    // What was loaded past the sidecar could have functions of the same names.
    for (name, _) in native(control).await? {
        control.call_raw(&[b"FUNCTION", b"DELETE", &name]).await?;
    }
    let name = name_of(text);
    let commands: [&[&[u8]]; 5] = [
        &[b"MULTI"],
        &[b"FUNCTION", b"LOAD", text],
        &[b"FUNCTION", b"LIST", b"LIBRARYNAME", &name],
        &[b"FUNCTION", b"DELETE", &name],
        &[b"EXEC"],
    ];
    let mut replies = control.call_all(commands).await?;
    if let Some(error) = replies.iter().find(|reply| is_error(reply)) {
        return Err(ControlError::Refused(text_of(error)));
    }
    let Some(BytesFrame::Array { data, .. }) = replies.pop() else {
        return Err(ControlError::Protocol);
    };
    match data.as_slice() {
        [loaded, ..] if is_error(loaded) => Err(ControlError::Refused(text_of(loaded))),
        [_, listed, _] => functions_of(listed).ok_or(ControlError::Protocol),
        _ => Err(ControlError::Protocol),
    }
}

/// The libraries that the node has and that are not the sidecar's: their names and texts.
pub async fn native(control: &mut Control) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ControlError> {
    let BytesFrame::Array { data, .. } = control.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for library in data {
        let (mut name, mut text) = (Vec::new(), Vec::new());
        for (field, value) in pairs_of(library) {
            match bytes_of(&field) {
                b"library_name" => name = bytes_of(&value).to_vec(),
                b"library_code" => text = bytes_of(&value).to_vec(),
                _ => {}
            }
        }
        if !name.starts_with(PREFIX.as_bytes()) {
            found.push((name, text));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes all libraries off a node that nobody uses at the moment: what is needed will be given again, and versions that have
/// been replaced are gone for good.
pub async fn clear(control: &mut Control) -> Result<(), ControlError> {
    match control.call(&[b"FUNCTION", b"FLUSH"]).await {
        // Older than functions.
        Ok(_) | Err(ControlError::Refused(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

fn functions_of(listed: &BytesFrame) -> Option<Vec<Function>> {
    let BytesFrame::Array { data, .. } = listed else {
        return None;
    };
    let library = pairs_of(data.first()?.clone());
    let (_, functions) = library
        .into_iter()
        .find(|(field, _)| bytes_of(field) == b"functions")?;
    let BytesFrame::Array { data, .. } = functions else {
        return None;
    };
    let function = |frame: BytesFrame| {
        let mut function = Function {
            name: bytes::Bytes::new(),
            description: None,
            flags: Vec::new(),
        };
        for (field, value) in pairs_of(frame) {
            match (bytes_of(&field), value) {
                (b"name", value) => function.name = bytes::Bytes::copy_from_slice(bytes_of(&value)),
                (b"description", BytesFrame::Null) => {}
                (b"description", value) => {
                    function.description = Some(bytes::Bytes::copy_from_slice(bytes_of(&value)));
                }
                (b"flags", BytesFrame::Set { data, .. }) => {
                    function.flags = data
                        .iter()
                        .map(|flag| bytes::Bytes::copy_from_slice(bytes_of(flag)))
                        .collect();
                    function.flags.sort();
                }
                _ => {}
            }
        }
        function
    };
    Some(data.into_iter().map(function).collect())
}
