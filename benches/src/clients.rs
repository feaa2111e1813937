//! How long do answers take that come through a process between, and how much processor time does it need for them?
//!
//! Clients are threads of this process, each with one question at a time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::http::middle::Middle;
use crate::rounds::Plan;
use crate::stats::quantile;

/// One that asks.
pub trait Client: Send {
    /// Asks, and reads the answer to its end; `number` counts its questions of a slice.
    fn ask(&mut self, number: usize) -> Result<()>;
}

/// What was measured in a slice.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Questions that were answered.
    pub answers: u64,
    /// How long it took.
    pub time: Duration,
    /// Processor time of what is between.
    pub cpu: Duration,
    /// Half of the answers came within so many microseconds.
    pub p50: f64,
    /// Of a hundred, all but one.
    pub p99: f64,
}

/// Clients that are ready to ask.
pub struct Load<C>(Vec<Mutex<C>>);

impl<C: Client> Load<C> {
    /// So many, each made with its number.
    pub fn connect(count: usize, connect: impl Fn(usize) -> Result<C>) -> Result<Load<C>> {
        Ok(Load((0..count).map(|number| connect(number).map(Mutex::new)).collect::<Result<_>>()?))
    }

    /// One question of each.
    pub fn each_once(&self) -> Result<()> {
        self.0.iter().try_for_each(|client| ask(client, 0))
    }

    /// All of them, one question after the other.
    fn run(&self, time: Duration, middle: Option<&Middle>) -> Result<Slice> {
        self.each_once()?;
        let stop = AtomicBool::new(false);
        let before = middle.map(Middle::cpu).transpose()?;
        let started = Instant::now();
        let times = std::thread::scope(|scope| {
            let threads: Vec<_> = self.0.iter().map(|client| scope.spawn(|| work(client, &stop))).collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new())))
                .collect::<Result<Vec<_>>>()
        })?;
        let time = started.elapsed();
        let after = middle.map(Middle::cpu).transpose()?;
        let mut all: Vec<f64> = times.concat();
        ensure!(!all.is_empty(), "no question was answered");
        Ok(Slice {
            answers: all.len() as u64,
            time,
            cpu: after.zip(before).map_or(Duration::ZERO, |(after, before)| after - before),
            p50: quantile(&mut all, 0.5),
            p99: quantile(&mut all, 0.99),
        })
    }
}

fn work<C: Client>(client: &Mutex<C>, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1 << 14);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        ask(client, times.len())?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn ask<C: Client>(client: &Mutex<C>, number: usize) -> Result<()> {
    client.lock().unwrap_or_else(PoisonError::into_inner).ask(number)
}

/// One way to the server that is measured.
pub struct Measured<C> {
    /// As rows call it.
    pub name: &'static str,
    /// What is between; nothing: clients ask the server itself.
    pub middle: Option<Middle>,
    load: Load<C>,
    slices: Vec<Slice>,
}

impl<C: Client> Measured<C> {
    /// With clients that ask the address they are given: that of what is between, or the server's.
    pub fn new(
        name: &'static str,
        middle: Option<Middle>,
        server: SocketAddr,
        load: impl FnOnce(SocketAddr) -> Result<Load<C>>,
    ) -> Result<Measured<C>> {
        let address = middle.as_ref().map_or(server, |middle| middle.address);
        Ok(Measured { name, middle, load: load(address)?, slices: Vec::new() })
    }

    /// A value of each slice.
    pub fn series(&self, value: impl Fn(&Slice) -> f64) -> Vec<f64> {
        self.slices.iter().map(value).collect()
    }

    /// Processor time of what is between for an answer, in microseconds.
    pub fn cpu(&self) -> Vec<f64> {
        self.series(|slice| slice.cpu.as_secs_f64() * 1e6 / slice.answers.max(1) as f64)
    }
}

/// Measures all of them in turn, a slice each, as often as is planned.
pub fn rounds<C: Client>(all: &mut [Measured<C>], plan: &Plan) -> Result<()> {
    for _ in 0..plan.rounds {
        for one in &mut *all {
            let slice = one.load.run(plan.slice, one.middle.as_ref())?;
            one.slices.push(slice);
        }
    }
    Ok(())
}
