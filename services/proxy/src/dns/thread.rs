//! What does the thread do when something comes, and when nothing comes?

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use dns::Said;
use proxy_api::{Direction, Protocol};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::datagrams::{self, Datagram};
use super::forwarder::{BELL, Command};
use super::learned::Telling;
use super::names::{Asked, Ends, Judged, Names};
use super::reply::Replies;
use super::upstream::{Asking, Key};
use crate::shared::millis;

/// Datagrams of one socket before others have their turn.
const TURN: usize = 64;
/// Sockets that are asked for in one go.
const EVENTS: usize = 64;
/// The longest answer by UDP.
const LONGEST: usize = 65_535;
/// How often it is looked at who waits for a server for too long, and which sockets are idle.
const SERVERS: Duration = Duration::from_millis(100);
/// How often it is looked at who waits for the agent for too long.
const AGENT: Duration = Duration::from_millis(5);

/// An answer that waits until the datapath knows its addresses.
struct Learning {
    asked: Box<Asked>,
    said: Said,
    message: Vec<u8>,
    telling: Telling,
    /// The agent has been told.
    told: bool,
    until: Instant,
}

/// All that the thread has.
pub struct Thread {
    names: Arc<Names>,
    replies: Replies,
    told: Receiver<Command>,
    bell: Arc<OwnedFd>,
    poll: OwnedFd,
    listening: HashMap<u64, Arc<(OwnedFd, Direction)>>,
    asking: HashMap<u64, Asking>,
    by_key: HashMap<Key, u64>,
    /// Questions that wait for servers.
    waiting: usize,
    /// Sockets with questions that are not sent yet.
    outgoing: Vec<u64>,
    learning: HashMap<u64, Learning>,
    next: u64,
    questions: datagrams::Receiver,
    answer: Vec<u8>,
    /// Its holder waits for the last answer.
    tasks: TaskTracker,
    busy: Option<TaskTrackerToken>,
}

impl Thread {
    /// With nobody to listen to yet. The bell says that something was told.
    pub fn new(
        names: Arc<Names>,
        replies: Replies,
        tasks: TaskTracker,
        told: Receiver<Command>,
        bell: Arc<OwnedFd>,
    ) -> io::Result<Thread> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Thread {
            names,
            replies,
            told,
            bell,
            poll,
            listening: HashMap::new(),
            asking: HashMap::new(),
            by_key: HashMap::new(),
            waiting: 0,
            outgoing: Vec::new(),
            learning: HashMap::new(),
            // Those who listen count from below.
            next: 1 << 32,
            questions: datagrams::Receiver::new(),
            answer: vec![0; LONGEST],
            tasks,
            busy: None,
        })
    }

    /// Until nobody is there who could tell something.
    pub fn run(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut servers = Instant::now() + SERVERS;
        let mut agent = servers;
        loop {
            let now = Instant::now();
            if !self.learning.is_empty() && now >= agent {
                self.look_at_learning(now);
                agent = now + AGENT;
            }
            if !self.asking.is_empty() && now >= servers {
                self.look_at_asking(now);
                servers = now + SERVERS;
            }
            // A time that nobody waits for may be over, and would keep the thread awake.
            let wanted = [(!self.learning.is_empty()).then_some(agent), (!self.asking.is_empty()).then_some(servers)];
            let next = wanted.into_iter().flatten().min();
            self.send();
            self.mind_busy();
            events.clear();
            let sleep = next.and_then(|next| Timespec::try_from(next.saturating_duration_since(now)).ok());
            match epoll::wait(&self.poll, spare_capacity(&mut events), sleep.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "sockets cannot be waited for");
                    std::thread::sleep(SERVERS);
                }
            }
            let now = Instant::now();
            for event in &events {
                match event.data.u64() {
                    BELL => {
                        if !self.hear(now) {
                            return;
                        }
                    }
                    number if self.listening.contains_key(&number) => self.take_questions(number, now),
                    number => self.take_answers(number, now),
                }
            }
        }
    }

    /// Whoever ends the process waits for those that wait here.
    fn mind_busy(&mut self) {
        let busy = !self.listening.is_empty() || !self.learning.is_empty() || self.waiting > 0;
        if busy != self.busy.is_some() {
            self.busy = busy.then(|| self.tasks.token());
        }
    }

    /// False if nobody is there any more.
    fn hear(&mut self, now: Instant) -> bool {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        loop {
            match self.told.try_recv() {
                Ok(Command::Listen(number, socket, direction)) => {
                    let data = epoll::EventData::new_u64(number);
                    if let Err(error) = epoll::add(&self.poll, &socket, data, epoll::EventFlags::IN) {
                        tracing::error!(%error, "questions by UDP cannot be taken");
                    }
                    self.listening.insert(number, Arc::new((socket, direction)));
                }
                Ok(Command::Close(number)) => {
                    // Copies of the socket stay open: it has to be taken off the list.
                    if let Some(listening) = self.listening.remove(&number) {
                        let _ = epoll::delete(&self.poll, &listening.0);
                    }
                }
                Ok(Command::Held(numbers)) => {
                    for number in numbers {
                        // What was given up is not there any more.
                        if let Some(Learning { asked, said, message, telling, .. }) = self.learning.remove(&number) {
                            self.names.learnings.remember(telling);
                            self.release(&asked, said, &message, now);
                        }
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_questions(&mut self, number: u64, now: Instant) {
        let Some(listening) = self.listening.get(&number).cloned() else { return };
        let mut questions = std::mem::take(&mut self.questions);
        for _ in 0..TURN {
            match questions.receive(listening.0.as_fd()) {
                Ok(Some(question)) => self.take_question(question, listening.1, now),
                Ok(None) => self.names.shared.counters.dns_unreadable.add(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be taken");
                    break;
                }
            }
        }
        self.questions = questions;
    }

    fn take_question(&mut self, question: Datagram<'_>, direction: Direction, now: Instant) {
        let Datagram { client, server, message } = question;
        let ends = Ends { client, server, protocol: Protocol::Udp };
        let (facts, rules) = match self.names.facts(ends, direction) {
            Ok(found) => found,
            Err(unknown) => {
                tracing::debug!(%client, %server, why = unknown.reason(), "a question is refused");
                return self.names.shared.counters.refused_unknown.add();
            }
        };
        match self.names.judge(ends, (facts, &rules), message, now) {
            Judged::Ask(asked) => self.ask(asked, message, now),
            Judged::Say(Some(answer)) => self.reply(ends, &answer),
            Judged::Say(None) => {}
        }
    }

    fn ask(&mut self, asked: Box<Asked>, message: &[u8], now: Instant) {
        let number = match self.socket_for(&asked, now) {
            Ok(number) => number,
            Err(error) => return self.fail(&asked, &error),
        };
        if let Some(asking) = self.asking.get_mut(&number) {
            self.waiting += 1;
            if asking.ask(asked, message, now) {
                self.outgoing.push(number);
            }
        }
    }

    /// Sends the questions and answers that have come together.
    fn send(&mut self) {
        for number in std::mem::take(&mut self.outgoing) {
            let failed = self.asking.get_mut(&number).map(Asking::send).unwrap_or_default();
            self.waiting -= failed.len();
            for (asked, error) in failed {
                self.fail(&asked, &error);
            }
        }
        for (client, error) in self.replies.send() {
            tracing::debug!(%client, %error, "an answer could not be sent");
            self.names.shared.counters.dns_failed.add();
        }
    }

    /// The number of a socket that asks in this client's name.
    fn socket_for(&mut self, asked: &Asked, now: Instant) -> io::Result<u64> {
        let key = Key::new(asked.facts(), asked.ends());
        if let Some(number) = self.by_key.get(&key)
            && self.asking.get(number).is_some_and(Asking::is_open)
        {
            return Ok(*number);
        }
        let asking = Asking::open(&self.names.shared, key, asked, now)?;
        let number = self.next;
        epoll::add(&self.poll, &asking.socket, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        self.next += 1;
        self.by_key.insert(key, number);
        self.asking.insert(number, asking);
        Ok(number)
    }

    fn take_answers(&mut self, number: u64, now: Instant) {
        let mut room = std::mem::take(&mut self.answer);
        for _ in 0..TURN {
            // One that was closed since, or whose questions all have their answers.
            let Some(asking) = self.asking.get_mut(&number) else { break };
            match asking.socket.recv(&mut room) {
                Ok(length) => {
                    let found = asking.take(&room[..length]);
                    let all = asking.waiting() == 0;
                    match found {
                        Some((asked, said)) => {
                            self.waiting -= 1;
                            self.take_answer(asked, said, &mut room[..length], now);
                        }
                        None => self.names.shared.counters.dns_mismatched.add(),
                    }
                    if all {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error: the server is not there, and who waits hears it at once.
                Err(error) => {
                    self.fail_all(number, &error);
                    break;
                }
            }
        }
        self.answer = room;
    }

    fn take_answer(&mut self, asked: Box<Asked>, said: Said, message: &mut [u8], now: Instant) {
        message[..2].copy_from_slice(&asked.question.id.to_be_bytes());
        let Some(telling) = asked.teaches(&said, now) else { return self.release(&asked, said, message, now) };
        let told = self.names.learnings.try_tell(&telling);
        let until = now + millis(self.names.shared.settings.load().dns.response_max_delay);
        let message = message.to_vec();
        self.learning.insert(telling.number, Learning { asked, said, message, telling, told, until });
    }

    fn release(&mut self, asked: &Asked, said: Said, message: &[u8], now: Instant) {
        self.reply(asked.ends(), message);
        asked.answered(said, now);
    }

    fn reply(&mut self, ends: Ends, message: &[u8]) {
        self.replies.push(ends.server, ends.client, message);
    }

    fn fail(&mut self, asked: &Asked, why: &dyn Display) {
        self.reply(asked.ends(), &asked.failed(why));
    }

    /// All that wait at this socket.
    fn fail_all(&mut self, number: u64, error: &io::Error) {
        let failed: Vec<_> = self.asking.get_mut(&number).map(|asking| asking.fail().collect()).unwrap_or_default();
        self.waiting -= failed.len();
        for asked in failed {
            self.fail(&asked, error);
        }
    }

    /// Tells the agent what it had no room for, and gives answers that have waited long enough.
    fn look_at_learning(&mut self, now: Instant) {
        for learning in self.learning.values_mut().filter(|learning| !learning.told) {
            learning.told = self.names.learnings.try_tell(&learning.telling);
            if !learning.told {
                break;
            }
        }
        let late: Vec<_> = self.learning.extract_if(|_, learning| now >= learning.until).collect();
        for (_, Learning { asked, said, message, .. }) in late {
            self.names.shared.counters.dns_released_early.add();
            self.release(&asked, said, &message, now);
        }
    }

    /// Gives up questions that have waited long enough, and closes sockets that nobody asks by.
    fn look_at_asking(&mut self, now: Instant) {
        let patience = millis(self.names.shared.settings.load().dns.timeout);
        for asking in self.asking.values_mut() {
            for asked in asking.late(now, patience) {
                self.waiting -= 1;
                asked.timed_out();
            }
        }
        for (number, asking) in self.asking.extract_if(|_, asking| asking.is_over(now)) {
            if self.by_key.get(&asking.key) == Some(&number) {
                self.by_key.remove(&asking.key);
            }
        }
    }
}
