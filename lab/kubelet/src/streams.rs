//! How do several streams share one WebSocket, as `kubectl exec` and `attach` want it?
//!
//! The first byte of each message is a channel; version 5 adds a message that closes one.

use serde_json::{Value, json};

/// Versions that are spoken, the best first.
pub const EXEC_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Channels of exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// To the process.
    Input,
    /// From the process.
    Output,
    /// From the process.
    Error,
    /// How it ended, as a `Status`.
    Status,
    /// Size of the terminal.
    Resize,
}

impl Channel {
    /// Its byte.
    pub fn byte(self) -> u8 {
        match self {
            Channel::Input => 0,
            Channel::Output => 1,
            Channel::Error => 2,
            Channel::Status => 3,
            Channel::Resize => 4,
        }
    }
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<'a> {
    /// Bytes for standard input.
    Input(&'a [u8]),
    /// No more input comes.
    InputEnds,
    /// Columns and rows.
    Resize(u16, u16),
    /// Nothing that matters here.
    Other,
}

/// Reads a message of a client.
pub fn parse(message: &[u8]) -> Said<'_> {
    let Some((channel, rest)) = message.split_first() else { return Said::Other };
    match (channel, rest) {
        (0, bytes) => Said::Input(bytes),
        (255, [0]) => Said::InputEnds,
        (4, text) => resize(text).unwrap_or(Said::Other),
        _ => Said::Other,
    }
}

fn resize(text: &[u8]) -> Option<Said<'static>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let size = |key: &str| value.get(key)?.as_u64().and_then(|n| u16::try_from(n).ok());
    Some(Said::Resize(size("Width")?, size("Height")?))
}

/// A message to the client.
pub fn message(channel: Channel, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len() + 1);
    all.push(channel.byte());
    all.extend_from_slice(bytes);
    all
}

/// How a command ended, for the status channel.
pub fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Why a command could not be run.
pub fn failed(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": format!("Internal error occurred: error executing command in container: {message}"),
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_clients_are_told_apart() {
        assert_eq!(parse(b"\x00ls\n"), Said::Input(b"ls\n"));
        assert_eq!(parse(&[255, 0]), Said::InputEnds);
        assert_eq!(parse(b"\x04{\"Width\":80,\"Height\":24}"), Said::Resize(80, 24));
        for broken in [&b""[..], b"\x04{", b"\x04{\"Width\":70000,\"Height\":1}", b"\x09x", &[255]] {
            assert_eq!(parse(broken), Said::Other, "{broken:?}");
        }
    }

    #[test]
    fn exit_codes_travel_as_causes() {
        assert_eq!(ended(0)["status"], "Success");
        assert_eq!(ended(3)["details"]["causes"][0]["message"], "3");
    }
}
