//! What does Axoneme do? Walks through the BookInfo scenario on a fresh lab and compares what is expected with what is seen.

use crate::step::{cargo, root, step, target};
use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use std::time::Duration;
use testbed::{Lab, Plan, eventually};

const PLAN: Plan<'static> = Plan { name: "demo", nodes: 4, options: &["--cluster-name", "kind-kind"] };
const PAGE: &str = "http://productpage:9080/productpage";

/// A row of the table at the end.
struct Row {
    step: &'static str,
    asked: &'static str,
    expected: &'static str,
    seen: String,
}

/// Builds, brings the lab up, walks through the steps, prints the table, takes the lab down.
pub fn run(words: &[String]) -> Result<()> {
    step("building", || cargo(&["build", "--package", "axoneme"]))?;
    // SAFETY: nothing else runs in this process yet.
    unsafe { std::env::set_var("AXONEME", target().join("debug/axoneme")) };
    let lab = step("bringing up a cluster of four nodes", || Lab::up(&PLAN))?;
    let rows = walk(&lab)?;
    let wrong = table(&rows);
    if words.iter().any(|w| w == "--keep") {
        eprintln!("the lab stays up: axoneme lab env --name {}", lab.name());
        std::mem::forget(lab);
    }
    if wrong > 0 {
        bail!("{wrong} of {} rows differ", rows.len());
    }
    Ok(())
}

fn walk(lab: &Lab) -> Result<Vec<Row>> {
    let mut show = Show { lab, rows: Vec::new(), colour: colour() };
    show.title("BookInfo, without policies");
    show.apply("workloads.yaml")?;
    lab.rolled_out("default")?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/internal-client", "--timeout=60s"])?.ok()?;
    show.kubectl(&["get", "pods", "-o", "wide"])?;
    show.kubectl(&["get", "ciliumendpoints"])?;
    settle(lab, "reviews and details");
    show.page("no policy", "reviews and details")?;
    show.hubble(&["observe", "--from-pod", "internal-client", "--to-pod", "productpage", "--last", "5"])?;
    show.reach("no policy", "productpage -> ratings", "ratings", 9080, "reached")?;

    show.title("productpage may send nothing");
    show.apply("01-productpage-deny-all.yaml")?;
    settle(lab, "nothing");
    show.page("productpage-deny-all", "nothing")?;
    show.hubble(&["observe", "--from-pod", "productpage", "--verdict", "DROPPED", "--last", "6"])?;
    show.flow(
        "productpage-deny-all",
        "what Hubble says of DNS",
        "<> kube-system/coredns",
        "policy-verdict:none EGRESS DENIED (UDP)",
    )?;
    show.flow(
        "productpage-deny-all",
        "what Hubble says of DNS",
        "<> kube-system/coredns",
        "Policy denied DROPPED (UDP)",
    )?;

    show.title("productpage may ask the cluster's DNS");
    show.apply("02-allow-to-dns.yaml")?;
    show.resolves("allow-to-dns", "details", "resolved")?;
    show.page("allow-to-dns", "nothing")?;
    show.flow("allow-to-dns", "what Hubble says of DNS", "-> kube-system/coredns", "to-endpoint FORWARDED (UDP)")?;

    show.title("productpage may talk to reviews and details");
    show.apply("03-from-product-to-reviews-details.yaml")?;
    settle(lab, "reviews and details");
    show.page("from-product-to-reviews-details", "reviews and details")?;
    show.reach("from-product-to-reviews-details", "productpage -> ratings", "ratings", 9080, "denied")?;
    show.kubectl(&["get", "cnp", "-A"])?;
    show.hubble(&["observe", "--from-pod", "productpage", "--last", "4"])?;

    show.title("productpage's questions go through the proxy, and are seen");
    show.apply("04-allow-to-dns-l7.yaml")?;
    show.resolves("allow-to-dns, with names", "details", "resolved")?;
    show.hubble(&["observe", "--protocol", "dns", "--last", "6"])?;
    let question = "dns-request proxy FORWARDED (DNS Query details.default.svc.cluster.local. A)";
    show.flow_of(
        "productpage",
        "allow-to-dns, with names",
        "what Hubble says of DNS",
        "-> kube-system/coredns",
        question,
    )?;
    settle(lab, "reviews and details");
    show.page("allow-to-dns, with names", "reviews and details")?;

    show.title("internal-client may look up any name, and talk to ifconfig.me alone");
    show.apply("05-from-internal-client-to-fqdn.yaml")?;
    settle(lab, "no answer");
    show.page("from-internal-client-to-fqdn", "no answer")?;
    show.client("from-internal-client-to-fqdn", "internal-client -> ifconfig.me", "ifconfig.me", "reached")?;
    show.client("from-internal-client-to-fqdn", "internal-client -> cnn.com", "cnn.com", "denied")?;
    let verdict = "policy-verdict:L3-Only EGRESS ALLOWED (TCP Flags: SYN)";
    show.flow_of(
        "internal-client",
        "from-internal-client-to-fqdn",
        "what Hubble says of it",
        "-> ifconfig.me:80",
        verdict,
    )?;
    show.hubble(&["observe", "--pod", "internal-client", "--last", "8"])?;
    Ok(show.rows)
}

/// Waits, within bounds, until the page looks as expected; the row says what it is in the end.
fn settle(lab: &Lab, expected: &str) {
    let _ = eventually(Duration::from_secs(15), "the page", || {
        let seen = page(lab)?;
        if seen != expected {
            bail!("{seen}");
        }
        Ok(())
    });
}

/// Which parts of the page the client gets.
fn page(lab: &Lab) -> Result<&'static str> {
    let html = lab.exec("default", "internal-client", &["curl", "-s", "--max-time", "25", PAGE])?.stdout;
    let reviews = html.contains("Book Reviews");
    let details = html.contains("Book Details");
    Ok(match (reviews, details) {
        _ if html.is_empty() => "no answer",
        (true, true) => "reviews and details",
        (true, false) => "reviews",
        (false, true) => "details",
        (false, false) => "nothing",
    })
}

struct Show<'a> {
    lab: &'a Lab,
    rows: Vec<Row>,
    colour: bool,
}

impl Show<'_> {
    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1;36", &format!("── {text} ")));
    }

    fn apply(&self, file: &str) -> Result<()> {
        let path = root().join("examples/bookinfo").join(file);
        let yaml = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        self.prompt(&format!("kubectl apply -f examples/bookinfo/{file}"));
        print!("{}", self.lab.apply(&yaml)?);
        Ok(())
    }

    fn kubectl(&self, args: &[&str]) -> Result<()> {
        self.prompt(&format!("kubectl {}", args.join(" ")));
        print!("{}", self.lab.kubectl(args)?.ok()?);
        Ok(())
    }

    fn hubble(&self, args: &[&str]) -> Result<()> {
        self.prompt(&format!("hubble {}", args.join(" ")));
        let mut command = self.lab.command("hubble");
        command.args(args).args(["--color", if self.colour { "always" } else { "never" }]);
        print!("{}", testbed::Run::of(&mut command)?.ok()?);
        Ok(())
    }

    fn page(&mut self, step: &'static str, expected: &'static str) -> Result<()> {
        self.prompt(&format!("kubectl exec internal-client -- curl -s {PAGE}"));
        let seen = page(self.lab)?;
        println!("the page has: {seen}");
        self.rows.push(Row { step, asked: "the page that the client gets has", expected, seen: seen.to_string() });
        Ok(())
    }

    fn reach(
        &mut self,
        step: &'static str,
        asked: &'static str,
        host: &str,
        port: u16,
        expected: &'static str,
    ) -> Result<()> {
        let pod = self.lab.pod("default", "app=productpage")?;
        let seen = if self.lab.connects("default", &pod, host, port)? { "reached" } else { "denied" };
        self.rows.push(Row { step, asked, expected, seen: seen.to_string() });
        Ok(())
    }

    /// Does the client reach this host of the outside?
    fn client(&mut self, step: &'static str, asked: &'static str, host: &str, expected: &'static str) -> Result<()> {
        let seen = if self.lab.connects("default", "internal-client", host, 80)? { "reached" } else { "denied" };
        self.rows.push(Row { step, asked, expected, seen: seen.to_string() });
        Ok(())
    }

    fn resolves(&mut self, step: &'static str, name: &str, expected: &'static str) -> Result<()> {
        let pod = self.lab.pod("default", "app=productpage")?;
        let asked = eventually(Duration::from_secs(15), "the name", || {
            self.lab.exec("default", &pod, &["getent", "hosts", name])?.ok()
        });
        let seen = if asked.is_ok() { "resolved" } else { "not resolved" };
        self.rows.push(Row { step, asked: "productpage looks details up", expected, seen: seen.to_string() });
        Ok(())
    }

    /// As [`Show::flow_of`], of productpage.
    fn flow(&mut self, step: &'static str, asked: &'static str, of: &str, expected: &'static str) -> Result<()> {
        self.flow_of("productpage", step, asked, of, expected)
    }

    /// The row holds what the lines of a pod's flows that contain `of` end with, if one of them is as expected.
    fn flow_of(
        &mut self,
        pod: &str,
        step: &'static str,
        asked: &'static str,
        of: &str,
        expected: &'static str,
    ) -> Result<()> {
        let text = self.lab.hubble(&["observe", "--from-pod", pod, "--since", "60s"])?.ok()?;
        let mut lines = text.lines().filter(|l| l.contains(of));
        let seen = match lines.find(|l| l.ends_with(expected)) {
            Some(_) => expected.to_string(),
            None => text.lines().last().unwrap_or("no flow").to_string(),
        };
        self.rows.push(Row { step, asked, expected, seen });
        Ok(())
    }

    fn prompt(&self, text: &str) {
        println!("{} {}", self.paint("2", "$"), self.paint("1", text));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Prints the table and returns how many rows differ.
fn table(rows: &[Row]) -> usize {
    let colour = colour();
    println!("\n{:34} {:36} {:42} seen", "policy", "asked", "expected");
    for row in rows {
        let (mark, code) = if row.seen == row.expected { ("ok", "32") } else { ("DIFFERS", "31") };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_string() };
        println!("{:34} {:36} {:42} {} {mark}", row.step, row.asked, row.expected, row.seen);
    }
    rows.iter().filter(|r| r.seen != r.expected).count()
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
