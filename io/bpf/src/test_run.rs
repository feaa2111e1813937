//! What does a loaded program do with one packet that no device ever sees?

use crate::attach::Hook;
use crate::datapath::Datapath;
use crate::error::{Error, Result};
use crate::sys;

/// A packet for [`Datapath::test_run`].
#[derive(Clone, Debug, Default)]
pub struct TestInput<'a> {
    /// From the Ethernet header on; at least 14 bytes.
    pub packet: &'a [u8],
    /// Interface on which it arrives (of the current network namespace), 0: the loopback.
    pub ifindex: u32,
    /// How often the program runs on it; what it changed stays changed.
    pub repeat: u32,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutput {
    /// `TC_ACT_*`.
    pub action: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Nanoseconds of one run, on average.
    pub nanoseconds: u32,
    /// The mark afterwards.
    pub mark: u32,
}

/// Offsets in `struct __sk_buff`.
const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const CONTEXT: usize = 192;

impl Datapath {
    /// Runs the program of a hook on a packet, with the maps as they are.
    pub fn test_run(&self, hook: Hook, input: &TestInput<'_>) -> Result<TestOutput> {
        let mut context = [0u8; CONTEXT];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&input.ifindex.to_ne_bytes());
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&0u32.to_ne_bytes());
        let mut packet = vec![0; input.packet.len() + 256];
        let program = self.program(hook.program())?;
        let run = sys::test_run(program, input.packet, &mut context, (&mut packet, input.repeat.max(1)))
            .map_err(|source| Error::TestRun { program: hook.program(), source })?;
        packet.truncate(run.data_size_out as usize);
        let mark = u32::from_ne_bytes([context[MARK], context[MARK + 1], context[MARK + 2], context[MARK + 3]]);
        Ok(TestOutput { action: run.result, packet, nanoseconds: run.duration, mark })
    }
}
