//! What can go wrong between this program and Redis, sorted by what to do about it.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use crate::store::Error;

/// A call that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer, no connection, or a server that can't serve now. It is unknown whether the call was carried out.
    Away(String),
    /// The server has no memory or no disk for it. The call was not carried out.
    Full(String),
    /// The call was carried out, but not enough replicas or disks have it in time.
    Unconfirmed(String),
    /// The stream or its consumer group is not there.
    NoGroup,
    /// The server does not know the script. The call was not carried out.
    NoScript,
    /// The server refuses us: password, permissions.
    Denied(String),
    /// The server refuses the call as such, or answers it in a way this program does not know.
    Refused(String),
}

impl Fault {
    /// An answer that is not of the expected form.
    pub(super) fn strange(what: &str) -> Self {
        Self::Refused(format!("unexpected answer to {what}"))
    }

    /// Sorts an error. Its text never has a payload in it: Redis quotes arguments only for commands it does not know.
    pub(super) fn of(error: &RedisError) -> Self {
        let detail = || {
            let text = error.detail().unwrap_or_default();
            let text = text.split(", with args beginning").next().unwrap_or_default();
            let code = error.code().unwrap_or("ERR");
            format!("{code} {}", text.chars().take(200).collect::<String>())
        };
        match error.kind() {
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::NoScript => Self::NoScript,
                ServerErrorKind::NoPerm => Self::Denied(detail()),
                ServerErrorKind::BusyLoading
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly => Self::Away(detail()),
                _ => Self::of_text(detail()),
            },
            ErrorKind::AuthenticationFailed => Self::Denied("the password was refused".to_owned()),
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => Self::Refused(error.to_string()),
            ErrorKind::Extension => Self::of_text(detail()),
            _ => Self::Away(error.to_string()),
        }
    }

    fn of_text(text: String) -> Self {
        match text.split(' ').next().unwrap_or_default() {
            "OOM" => Self::Full("the server's memory is at its limit (maxmemory)".to_owned()),
            "MISCONF" => Self::Full("the server can't write to its disk".to_owned()),
            // A blocking read whose stream was deleted, or whose server was made a replica.
            "UNBLOCKED" if text.contains("instance state changed") => Self::Away(text),
            "NOGROUP" | "UNBLOCKED" => Self::NoGroup,
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self::Denied(text),
            "BUSY" | "NOREPLICAS" | "UNKILLABLE" => Self::Away(text),
            "ERR" if text.contains("max number of clients") => Self::Away(text),
            _ => Self::Refused(text),
        }
    }

    /// Whether the connection is of no more use: broken, or to a server that is not the master (any more).
    pub(super) fn wants_new_connection(error: &RedisError) -> bool {
        error.is_unrecoverable_error()
            || error.is_io_error()
            || (error.code() == Some("UNBLOCKED") && matches!(Self::of(error), Self::Away(_)))
            || matches!(
                error.kind(),
                ErrorKind::Server(
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
                )
            )
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(detail) => Self::Away(detail),
            Fault::Full(detail) => Self::Full(detail),
            Fault::Unconfirmed(detail) => Self::Away(format!("stored, but not safely enough: {detail}")),
            Fault::NoGroup => Self::Away("the consumer group is gone and is being made anew".to_owned()),
            Fault::NoScript => Self::Away("the server lost the scripts".to_owned()),
            Fault::Denied(detail) => Self::Unusable(format!("Redis refuses this router: {detail}")),
            Fault::Refused(detail) => Self::Unusable(format!("Redis refuses a call: {detail}")),
        }
    }
}

/// The error inside an answer, if it is one.
pub(super) fn server_error(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) => Some(RedisError::from(error.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: &str) -> Fault {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Fault::of(&server_error(&value).unwrap())
    }

    #[test]
    fn errors_are_sorted_by_what_to_do_about_them() {
        assert_eq!(fault("NOSCRIPT No matching script."), Fault::NoScript);
        assert_eq!(fault("NOGROUP No such key"), Fault::NoGroup);
        assert!(matches!(fault("OOM allow-oom flag is not set on the script"), Fault::Full(_)));
        assert!(matches!(fault("MISCONF Errors writing to the AOF file"), Fault::Full(_)));
        assert!(matches!(fault("LOADING Redis is loading the dataset in memory"), Fault::Away(_)));
        assert!(matches!(fault("READONLY You can't write against a read only replica."), Fault::Away(_)));
        assert!(matches!(
            fault("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"),
            Fault::Away(_)
        ));
        assert_eq!(fault("UNBLOCKED the stream key no longer exists"), Fault::NoGroup);
        assert!(matches!(fault("NOAUTH Authentication required."), Fault::Denied(_)));
        assert!(matches!(fault("WRONGTYPE Operation against a key"), Fault::Refused(_)));
    }

    #[test]
    fn no_argument_is_quoted() {
        let fault = fault("ERR unknown command 'XX', with args beginning with: 'secret' ");
        assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
    }
}
