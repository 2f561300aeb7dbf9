//! Where a command prints, and whether somebody looks at it.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::ProgressDrawTarget;

/// Where a command prints.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Where a progress bar may be drawn; none without a terminal.
    pub(super) bar: Option<ProgressDrawTarget>,
}

impl fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl<'a> Screen<'a> {
    /// Prints to these, lines only: no progress bars.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, bar: None }
    }

    /// Draws progress bars if somebody looks at both outputs.
    #[must_use]
    pub fn with_bar_on_terminal(mut self) -> Self {
        if io::stdout().is_terminal() && io::stderr().is_terminal() {
            self.bar = Some(ProgressDrawTarget::stderr());
        }
        self
    }

    /// What was asked for.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// What goes wrong.
    pub(super) fn complain(&mut self, text: &str) {
        // If nobody takes it, the exit code still says it.
        let _unsaid = writeln!(self.err, "ringfence: {text}");
    }
}
