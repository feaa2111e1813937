//! How does user space read the datapath's events?

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use abi::event::{Event, Record};
use abi::{from_bytes, pins};
use aya::maps::{Map, MapData, RingBuf};

use crate::error::{Error, Result};
use crate::sys;

/// The reader of the ring buffer. There is one at a time: what it takes is gone for others.
///
/// The programs do not wake anybody; the reader comes round at its own pace (a few milliseconds) and takes all there is.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventReader {
    /// Opens the pinned ring buffer, continuing where an earlier reader stopped.
    pub fn open(pin_dir: &Path) -> Result<EventReader> {
        let path = pin_dir.join(pins::EVENTS);
        let fd = sys::open(&path, 0).map_err(|source| Error::Pin { operation: "open", path, source })?;
        let data = MapData::from_fd(fd.as_fd().try_clone_to_owned().map_err(|e| Error::Pin {
            operation: "duplicate",
            path: pin_dir.join(pins::EVENTS),
            source: e,
        })?)?;
        Ok(EventReader { ring: RingBuf::try_from(Map::RingBuf(data))? })
    }

    /// Hands every waiting event to `take`, until there are `limit` or, so that a packet's stay together, up to two more;
    /// returns how many there were.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(Event)) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(item) = self.ring.next()
        {
            let Some(record) = from_bytes::<Record>(&item) else { continue };
            for event in record.events() {
                take(event);
                count += 1;
            }
        }
        count
    }

    /// Waits until there are events, looking every `pace`, and appends them to `out`; see [`EventReader::drain`] for `limit`.
    pub async fn read(&mut self, pace: Duration, limit: usize, out: &mut Vec<Event>) -> usize {
        loop {
            let count = self.drain(limit, |event| out.push(event));
            if count > 0 {
                return count;
            }
            tokio::time::sleep(pace).await;
        }
    }
}
