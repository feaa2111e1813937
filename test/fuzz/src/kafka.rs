//! What is made of requests to Kafka brokers, whatever comes in their place?

use l7::kafka::{Request, Rules, Said, Verdict, offer};

/// A frame behind its length, and a broker's list of versions.
pub fn run(data: &[u8]) {
    versions(data);
    let Ok(request) = Request::read(data) else { return };
    let (mut topics, mut unnamed) = (Vec::new(), false);
    let (facts, read) = request.walk(|said| match said {
        Said::Topic(topic) => topics.push(topic),
        Said::Unnamed => unnamed = true,
    });
    assert!(read.is_err() || facts.elements <= data.len(), "a list that was read is as long as its bytes at most");
    if let (Ok(()), false) = (read, request.body().is_empty()) {
        let end = data.len() - 1;
        if let Ok(shorter) = Request::read(&data[..end]) {
            let walked = shorter.walk(|_| {}).1;
            assert!(walked.is_err() || shorter.api().is_err() || topics.is_empty(), "the last byte counts");
        }
    }
    judged(&request, &topics, unnamed, read.is_ok());
}

/// Topics that are allowed one by one are allowed together, and one that is not denies all.
fn judged(request: &Request<'_>, topics: &[&[u8]], unnamed: bool, whole: bool) {
    let texts: Vec<&str> = topics.iter().filter_map(|topic| std::str::from_utf8(topic).ok()).collect();
    let rule = |topic: &str| crds::KafkaRule { topic: Some(topic.to_owned()), ..Default::default() };
    let (rules, problems) = Rules::new(&texts.iter().map(|topic| rule(topic)).collect::<Vec<_>>());
    let verdict = rules.judge(request, |_, _| {}).verdict;
    let known = problems.is_empty() && texts.iter().all(|topic| !topic.is_empty()) && texts.len() == topics.len();
    let named = whole && !unnamed && !topics.is_empty() && known;
    if named {
        assert_ne!(verdict, Verdict::Denied, "each topic has its rule");
        let (fewer, _) = Rules::new(&[rule("no.topic.of.this.name")]);
        assert_eq!(fewer.judge(request, |_, _| {}).verdict, Verdict::Denied);
    }
    // A rule whose topic is empty asks for none.
    if (!whole || unnamed) && texts.iter().all(|topic| !topic.is_empty()) {
        assert_eq!(verdict, Verdict::Denied, "what is not known is not allowed");
    }
    let (open, _) = Rules::new(&[crds::KafkaRule::default()]);
    assert_eq!(open.judge(request, |_, _| {}).verdict, Verdict::Allowed { sessionless: None });
}

/// What is told once stays when it is told again.
fn versions(data: &[u8]) {
    for (version, unknown) in [(0, false), (3, true)] {
        if let Ok(told) = offer(data, version, unknown) {
            assert_eq!(offer(&told, version, unknown), Ok(told.clone()));
            assert!(told.len() <= data.len(), "nothing is added");
        }
    }
}
