//! Why a command did not do what it was asked: one sentence that says what to do, and an exit code.

use std::io;

use super::EXIT_USAGE;

/// The sidecar said no, or could not finish.
const EXIT_REFUSED: u8 = 1;
/// `EX_UNAVAILABLE`: there is no sidecar.
const EXIT_UNAVAILABLE: u8 = 69;
/// `EX_IOERR`: the output cannot be written.
const EXIT_OUTPUT: u8 = 74;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nothing was done: nobody is there, or who is there has not answered a question.
    #[error(
        "no sidecar answers at {admin} ({why}): start it, or give the address of its admin port with --admin"
    )]
    Unreachable {
        /// Where.
        admin: String,
        /// What the system says.
        why: String,
    },
    /// The request may have arrived.
    #[error(
        "the sidecar at {admin} gave no answer ({why}), so it may have done this or not: look with `ringfence nodes list`"
    )]
    Unanswered {
        /// Where.
        admin: String,
        /// What the system says.
        why: String,
    },
    /// Something answers that is no sidecar, or not of this version.
    #[error(
        "{admin} does not answer like a sidecar of this version ({why}): give the address of its admin port with --admin"
    )]
    Foreign {
        /// Where.
        admin: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The sidecar is there but does not serve yet.
    #[error("{0}: try again when it serves")]
    NotServing(String),
    /// The sidecar said no, in its own words.
    #[error("{0}")]
    Refused(String),
    /// It has begun, and is not going to end well.
    #[error("{0}")]
    Unfinished(String),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Unanswered { .. } | Self::Foreign { .. } => EXIT_UNAVAILABLE,
            Self::NotServing(_) | Self::Refused(_) | Self::Unfinished(_) => EXIT_REFUSED,
            Self::Usage(_) => EXIT_USAGE,
            Self::Output(_) => EXIT_OUTPUT,
        }
    }

    /// Whoever reads the output has seen enough (`| head`): nothing to complain about.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
