//! A command as the proxy sees it: the client's own bytes, and where each argument lies in them.

/// Where one argument's payload lies in its command's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first payload byte.
    pub start: u32,
    /// Payload length in bytes.
    pub len: u32,
}

/// A borrowed view of one command: argument 0 is the command's name.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// The whole command, headers included, as it will be forwarded.
    pub bytes: &'a [u8],
    /// One span an argument.
    pub spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// Number of arguments, the command's name included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no argument at all (never so for a command from the scanner).
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `i`, or `None` past the end.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(i)?;
        self.bytes
            .get(span.start as usize..span.start as usize + span.len as usize)
    }

    /// Argument `i`, empty past the end. For positions that the arity check has already covered.
    pub fn arg(&self, i: usize) -> &'a [u8] {
        self.get(i).unwrap_or_default()
    }

    /// All arguments in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let view = *self;
        (0..view.len()).map(move |i| view.arg(i))
    }
}
