//! Do questions of DNS go where they may, and answers where they should, when servers and clients behave and when they
//! do not? Needs root, for answers in the server's name.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proxy::{Dns, Listeners, Replies, Shared, Table, Upstream};
use proxy_api::{Direction, Facts, FromProxy, Listener, Parser, Protocol, Redirected, RuleSet, RulesUpdate, Settings};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

struct Known(Arc<Mutex<Option<Facts>>>);

impl Redirected for Known {
    fn facts(&self, _: Protocol, _: SocketAddr, _: SocketAddr) -> Option<Facts> {
        *self.0.lock().unwrap()
    }

    fn speak_for(&self, _: BorrowedFd<'_>, _: &Facts) -> std::io::Result<()> {
        Ok(())
    }
}

const FACTS: Facts = Facts {
    endpoint: 7,
    direction: Direction::Egress,
    source_identity: 1_001,
    destination_identity: 1_002,
    rule_set: 1,
    revision: 1,
};

/// A proxy of DNS before one server, which the test plays.
struct Bed {
    proxy: SocketAddr,
    server: UdpSocket,
    shared: Arc<Shared>,
    dns: Arc<Dns>,
    known: Arc<Mutex<Option<Facts>>>,
    agent: mpsc::Receiver<FromProxy>,
    listeners: Listeners,
    tasks: TaskTracker,
    runtime: Option<Runtime>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bed {
    /// With these patterns; none of them: nothing may be asked.
    fn new(patterns: &[&str]) -> Bed {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let known = Arc::new(Mutex::new(Some(FACTS)));
        let redirected = Box::new(Known(Arc::clone(&known)));
        let shared = Shared::new(redirected, Upstream::Fixed(server.local_addr().unwrap()));
        let (sender, agent) = mpsc::channel(64);
        let tasks = TaskTracker::new();
        let dns = Dns::start(Arc::clone(&shared), sender, Replies::open().unwrap(), &tasks).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let mut listeners = Listeners::new(Arc::clone(&dns), tasks.clone(), Vec::new());
        // A port that is free for both protocols and both families.
        let port = loop {
            let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if listeners.set(&[Listener { traffic: proxy_api::Traffic::Dns, direction: Direction::Egress, port }]) {
                break port;
            }
        };
        drop(inside);
        let bed = Bed {
            proxy: (Ipv4Addr::LOCALHOST, port).into(),
            server,
            shared,
            dns,
            known,
            agent,
            listeners,
            tasks,
            runtime: Some(runtime),
        };
        bed.rules(patterns);
        bed
    }

    fn rules(&self, patterns: &[&str]) {
        let rule = |pattern: &&str| crds::DnsRule { match_name: None, match_pattern: Some((*pattern).to_owned()) };
        let set = RuleSet { dns: Some(patterns.iter().map(rule).collect()), ..RuleSet::open(1, Parser::Dns) };
        let update = RulesUpdate { revision: 1, whole: true, last: true, set: vec![set], removed: vec![] };
        self.shared.rules.store(Arc::new(Table::default().with(update)));
    }

    fn settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.shared.settings.load());
        change(&mut settings);
        self.shared.settings.store(Arc::new(settings));
    }

    fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(self.proxy).unwrap();
        socket
    }

    /// The question that came to the server.
    fn asked(&self) -> (Message, SocketAddr) {
        let mut room = [0; 2000];
        let (length, from) = self.server.recv_from(&mut room).unwrap();
        (Message::from_vec(&room[..length]).unwrap(), from)
    }

    fn say(&self, answer: &Message, to: SocketAddr) {
        self.server.send_to(&answer.to_vec().unwrap(), to).unwrap();
    }

    /// What the agent was told, which it says that it holds.
    fn learned(&mut self) -> proxy_api::Learned {
        let Some(FromProxy::Learned(learned)) = self.agent.blocking_recv() else { panic!() };
        self.dns.held(&[learned.number]);
        learned
    }

    /// Waits for a count.
    fn counted(&self, name: &str, wanted: u64) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let found = self.shared.counters.all().0[name];
            if found == wanted {
                return;
            }
            assert!(Instant::now() < end, "{name}: {found} instead of {wanted}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(id: u16, text: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(name(text), RecordType::A));
    message.to_vec().unwrap()
}

fn answer(to: &Message, addresses: &[u8]) -> Message {
    let mut message = Message::response(to.metadata.id, OpCode::Query);
    message.add_query(to.queries[0].clone());
    for last in addresses {
        let data = RData::A(A::new(192, 0, 2, *last));
        message.add_answer(Record::from_rdata(to.queries[0].name.clone(), 30, data));
    }
    message
}

fn receive(socket: &UdpSocket) -> Message {
    let mut room = [0; 65_535];
    let length = socket.recv(&mut room).unwrap();
    Message::from_vec(&room[..length]).unwrap()
}

#[test]
fn an_answer_comes_from_the_server_s_address_once_its_addresses_are_known() {
    let mut bed = Bed::new(&["*.example"]);
    bed.settings(|settings| settings.dns.response_max_delay = 60_000);
    let client = bed.client();
    client.send(&question(77, "WWW.example.")).unwrap();
    let (asked, from) = bed.asked();
    assert_eq!(asked.queries[0].name.to_ascii(), "WWW.example.");
    bed.say(&answer(&asked, &[1, 2]), from);
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut [0; 9]).is_err(), "not before the agent has said so");
    client.set_nonblocking(false).unwrap();
    let learned = bed.learned();
    assert_eq!((learned.endpoint, &*learned.name), (7, "www.example."));
    let addresses: Vec<(IpAddr, u32)> = [1, 2].map(|last| (IpAddr::from([192, 0, 2, last]), 30)).to_vec();
    assert_eq!(learned.addresses, addresses);
    // A connected socket takes datagrams of its peer alone: the answer is the server's.
    let got = receive(&client);
    assert_eq!((got.metadata.id, got.answers.len()), (77, 2));
    let records = bed.shared.recorder.take().records;
    let told: Vec<_> = records.iter().map(|record| (record.kind, record.verdict)).collect();
    use proxy_api::{Kind, Verdict};
    assert_eq!(told, [(Kind::Request, Verdict::Forwarded), (Kind::Response, Verdict::Forwarded)]);
}

#[test]
fn what_no_pattern_allows_is_refused_and_never_asked() {
    let bed = Bed::new(&["*.example"]);
    let client = bed.client();
    client.send(&question(1, "www.other.")).unwrap();
    let got = receive(&client);
    assert_eq!((got.metadata.id, got.metadata.response_code), (1, ResponseCode::Refused));
    bed.settings(|settings| settings.dns_reject_code = 3);
    client.send(&question(2, "a.b.example.")).unwrap();
    assert_eq!(receive(&client).metadata.response_code, ResponseCode::NXDomain);
    bed.server.set_nonblocking(true).unwrap();
    assert!(bed.server.recv(&mut [0; 9]).is_err());
    bed.counted("dns_denied", 2);
}

#[test]
fn a_name_that_is_denied_is_refused_whatever_a_pattern_allows() {
    let bed = Bed::new(&["*"]);
    let dns = Some(vec![crds::DnsRule { match_name: None, match_pattern: Some("*".into()) }]);
    let denied_names = vec!["evil.example".into(), "**.bad.example".into()];
    let set = RuleSet { dns, denied_names, ..RuleSet::open(1, Parser::Dns) };
    let update = RulesUpdate { revision: 2, whole: true, last: true, set: vec![set], removed: vec![] };
    bed.shared.rules.store(Arc::new(Table::default().with(update)));
    let client = bed.client();
    for (id, name) in [(1, "EVIL.example."), (2, "a.b.bad.example.")] {
        client.send(&question(id, name)).unwrap();
        assert_eq!(receive(&client).metadata.response_code, ResponseCode::Refused, "{name}");
    }
    client.send(&question(3, "good.example.")).unwrap();
    bed.asked();
    bed.counted("dns_denied", 2);
}

#[test]
fn a_change_of_rules_holds_for_the_next_question() {
    let bed = Bed::new(&["*"]);
    bed.rules(&[]);
    let client = bed.client();
    client.send(&question(1, "www.example.")).unwrap();
    assert_eq!(receive(&client).metadata.response_code, ResponseCode::Refused);
    *bed.known.lock().unwrap() = None;
    client.send(&question(2, "www.example.")).unwrap();
    bed.counted("refused_unknown", 1);
}

#[test]
fn a52_only_the_right_answer_counts() {
    let mut bed = Bed::new(&["*"]);
    let client = bed.client();
    client.send(&question(5, "www.example.")).unwrap();
    let (asked, from) = bed.asked();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&answer(&asked, &[9]).to_vec().unwrap(), from).unwrap();
    let mut other_number = answer(&asked, &[9]);
    other_number.metadata.id = asked.metadata.id.wrapping_add(1);
    bed.say(&other_number, from);
    let mut other_name = asked.clone();
    other_name.queries[0].name = name("bank.example.");
    bed.say(&answer(&other_name, &[9]), from);
    bed.say(&asked, from);
    bed.server.send_to(&[0; 3], from).unwrap();
    bed.say(&answer(&asked, &[1]), from);
    bed.learned();
    let RData::A(address) = receive(&client).answers[0].data.clone() else { panic!() };
    assert_eq!(address.0, Ipv4Addr::new(192, 0, 2, 1));
    bed.counted("dns_mismatched", 4);
}

#[test]
fn an_agent_that_does_not_answer_delays_an_answer_and_no_more() {
    let bed = Bed::new(&["*"]);
    let client = bed.client();
    client.send(&question(5, "www.example.")).unwrap();
    let (asked, from) = bed.asked();
    let began = Instant::now();
    bed.say(&answer(&asked, &[1]), from);
    receive(&client);
    assert!(began.elapsed() >= Duration::from_millis(100));
    bed.counted("dns_released_early", 1);
}

#[test]
fn servers_that_are_silent_or_absent_are_waited_for_within_bounds() {
    let limits: [fn(&mut proxy_api::DnsSettings); 2] = [|dns| dns.questions_per_endpoint = 2, |dns| dns.questions = 2];
    for limit in limits {
        let bed = Bed::new(&["*"]);
        bed.settings(|settings| {
            settings.dns.timeout = 50;
            limit(&mut settings.dns);
        });
        let client = bed.client();
        for id in 0..3 {
            client.send(&question(id, "www.example.")).unwrap();
        }
        bed.counted("dns_timeout", 2);
        bed.counted("dns_overload", 1);
        client.send(&question(9, "www.example.")).unwrap();
        bed.counted("dns_timeout", 3);
    }
}

/// Many clients at a time, and answers in another order than questions: everybody gets its own.
#[test]
fn answers_find_their_questions_in_any_order() {
    let bed = Bed::new(&["*"]);
    let clients: Vec<UdpSocket> = (0..8).map(|_| bed.client()).collect();
    // The server has room for so many at a time.
    for round in 0..10u16 {
        let ids = round * 12..(round + 1) * 12;
        for id in ids.clone() {
            for (number, client) in clients.iter().enumerate() {
                client.send(&question(id, &format!("n{id}.c{number}.example."))).unwrap();
            }
        }
        let mut asked: Vec<_> = (0..8 * 12).map(|_| bed.asked()).collect();
        let numbers: HashSet<_> = asked.iter().map(|(message, from)| (message.metadata.id, *from)).collect();
        assert_eq!(numbers.len(), asked.len(), "each has a number of its own");
        asked.sort_by_key(|(message, _)| message.metadata.id);
        for (message, from) in &asked {
            bed.say(&answer(message, &[]), *from);
        }
        for (number, client) in clients.iter().enumerate() {
            let mut got: Vec<_> = ids.clone().map(|_| receive(client)).collect();
            got.sort_by_key(|message| message.metadata.id);
            for (id, message) in ids.clone().zip(got) {
                assert_eq!(message.metadata.id, id);
                assert_eq!(message.queries[0].name, name(&format!("n{id}.c{number}.example.")));
            }
        }
    }
    bed.counted("dns_forwarded", 960);
    bed.counted("dns_mismatched", 0);
}

/// What the kernel says of a port that nobody has, it says at the next call: those who asked before hear it, and who asks
/// then is asked for.
#[test]
fn who_asks_a_server_that_is_not_there_hears_it_at_once() {
    let mut bed = Bed::new(&["*"]);
    bed.settings(|settings| settings.dns.timeout = 60_000);
    let (client, address) = (bed.client(), bed.server.local_addr().unwrap());
    bed.server = UdpSocket::bind("127.0.0.1:0").unwrap();
    for id in 0..3 {
        client.send(&question(id, "www.example.")).unwrap();
    }
    let mut ids: Vec<u16> = (0..3)
        .map(|_| {
            let got = receive(&client);
            assert_eq!(got.metadata.response_code, ResponseCode::ServFail);
            got.metadata.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2]);
    let back = UdpSocket::bind(address).unwrap();
    back.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.send(&question(9, "www.example.")).unwrap();
    let mut room = [0; 512];
    let (length, from) = back.recv_from(&mut room).unwrap();
    let asked = Message::from_vec(&room[..length]).unwrap();
    back.send_to(&answer(&asked, &[]).to_vec().unwrap(), from).unwrap();
    assert_eq!(receive(&client).metadata.id, 9);
    bed.counted("dns_failed", 3);
}

/// A process that ends waits for the answers that its clients wait for.
#[test]
fn whoever_ends_the_process_waits_for_answers() {
    let mut bed = Bed::new(&["*"]);
    let client = bed.client();
    client.send(&question(1, "www.example.")).unwrap();
    let (asked, from) = bed.asked();
    bed.listeners.close();
    bed.tasks.close();
    let runtime = bed.runtime.take().unwrap();
    let ended = |patience| {
        let waits = async { tokio::time::timeout(Duration::from_millis(patience), bed.tasks.wait()).await.is_ok() };
        runtime.block_on(waits)
    };
    assert!(!ended(50), "a question waits");
    bed.client().send(&question(2, "www.example.")).unwrap();
    bed.say(&answer(&asked, &[]), from);
    assert_eq!(receive(&client).metadata.id, 1);
    assert!(ended(5_000));
    bed.server.set_nonblocking(true).unwrap();
    assert!(bed.server.recv(&mut [0; 9]).is_err(), "nothing is taken after the end");
    runtime.shutdown_background();
}

#[test]
fn nothing_is_left_of_a_proxy_that_is_gone() {
    let bed = Bed::new(&["*"]);
    let left = Arc::downgrade(&bed.shared);
    drop(bed);
    let end = Instant::now() + Duration::from_secs(5);
    while left.strong_count() > 0 {
        assert!(Instant::now() < end, "the thread for names goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a54_odd_messages_are_answered_or_dropped_and_go_nowhere() {
    let bed = Bed::new(&["*"]);
    let client = bed.client();
    let mut none = question(3, "a.");
    none[5] = 0;
    client.send(&none).unwrap();
    assert_eq!(receive(&client).metadata.response_code, ResponseCode::FormErr);
    client.send(&[1, 2, 3]).unwrap();
    client.send(&[0; 5000]).unwrap();
    let mut response = question(4, "a.");
    response[2] |= 0x80;
    client.send(&response).unwrap();
    bed.counted("dns_unreadable", 4);
    bed.server.set_nonblocking(true).unwrap();
    assert!(bed.server.recv(&mut [0; 9]).is_err());
}

#[test]
fn questions_by_tcp_share_a_connection_and_are_judged_one_by_one() {
    let mut bed = Bed::new(&["*.example"]);
    let server = TcpListener::bind(bed.server.local_addr().unwrap()).unwrap();
    let served = std::thread::spawn(move || {
        let mut answered = 0;
        // The second connection is asked for because the first is closed after its answer.
        for _ in 0..2 {
            let (mut stream, _) = server.accept().unwrap();
            let asked = Message::from_vec(&read(&mut stream)).unwrap();
            // Longer than any datagram of the usual size.
            let bytes = answer(&asked, &(0..200).collect::<Vec<u8>>()).to_vec().unwrap();
            write(&mut stream, &bytes);
            answered += 1;
        }
        answered
    });
    let mut client = TcpStream::connect(bed.proxy).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for (id, host, code) in [(1, "a.example.", 0u16), (2, "a.other.", 5), (3, "b.example.", 0)] {
        // Length and message in two pieces, as bad luck has it.
        let message = question(id, host);
        client.write_all(&[0]).unwrap();
        client.write_all(&[&[u8::try_from(message.len()).unwrap()], message.as_slice()].concat()).unwrap();
        if code == 0 {
            bed.learned();
        }
        let got = Message::from_vec(&read(&mut client)).unwrap();
        assert_eq!((got.metadata.id, u16::from(got.metadata.response_code)), (id, code));
    }
    assert_eq!(served.join().unwrap(), 2);
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

fn write(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(message).unwrap();
}
