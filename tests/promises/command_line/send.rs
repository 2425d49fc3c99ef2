//! `branchline send`: what arrives, what is told of what does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::support::program::branchline;
use crate::support::receiver::Receiver;
use crate::support::router::{KEY, RouterProcess, free_port};

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(receiver: &Receiver) -> RouterProcess {
    let rest = format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{}"
[[routes]]
name = "all"
events = ["**"]
subscriptions = [{{ name = "x", endpoint = "x" }}]
"#,
        receiver.url("/x")
    );
    let mut router = RouterProcess::new("file:{folder}/data", &rest);
    router.start().await;
    router
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_file_arrive_once_and_those_refused_are_told_with_their_place() {
    let receiver = Receiver::start().await;
    let router = start(&receiver).await;
    let config = router.folder().join("branchline.toml");
    let config = config.to_str().unwrap();
    let mut lines: Vec<String> =
        (1..=250).map(|n| format!(r#"{{"id":"evt_{n}","eventType":"order.created","payload":{n}}}"#)).collect();
    lines[6] = r#"{"id":"evt_7","eventtype":"order.created","payload":7}"#.to_owned();
    let file = router.folder().join("events.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();

    let ended = branchline(&["send", file, "--config", config, "--batch", "20", "--concurrency", "3"], "").await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.stdout, "249 accepted, 0 duplicates, 1 refused\n");
    for part in
        ["event 7 was refused:\n", "  /eventtype: an envelope has no key `eventtype`; did you mean `eventType`?"]
    {
        assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
    }
    eventually("they arrive", PATIENCE, async || (receiver.count("/x") == 249).then_some(())).await;

    let again = branchline(&["send", file, "--config", config, "--json"], "").await;
    let lines = again.json_lines();
    assert_eq!(lines.len(), 250);
    for (place, line) in lines.iter().enumerate() {
        assert_eq!(line["event"], place + 1, "in the order of the file");
        assert_eq!(line["status"], if place == 6 { "refused" } else { "duplicate" }, "{line}");
    }
    assert_eq!(lines[6]["errors"][0]["pointer"], "/eventtype", "{}", lines[6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_from_standard_input_is_answered_with_its_id() {
    let receiver = Receiver::start().await;
    let router = start(&receiver).await;
    let config = router.folder().join("branchline.toml");
    let config = config.to_str().unwrap();
    let ended = branchline(&["send", "--config", config], "{\n \"eventType\": \"a.b\",\n \"payload\": 1.00\n}\n").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let id = ended.stdout.strip_suffix(" accepted\n").unwrap();
    eventually("it arrives", PATIENCE, async || (receiver.count("/x") == 1).then_some(())).await;
    let body = String::from_utf8(receiver.received("/x")[0].body.to_vec()).unwrap();
    assert!(body.contains(id) && body.contains(r#""payload":1.00"#), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_for_every_request_ends_the_sending_and_names_the_way_out() {
    let receiver = Receiver::start().await;
    let router = start(&receiver).await;
    let url = format!("http://127.0.0.1:{}/v1/events", router.ingest);
    let events = r#"{"eventType":"a.b","payload":1}"#.repeat(1_000);
    let ended = branchline(&["send", "--url", &url, "--key", "wrong-key", "--batch", "1"], &events).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("401: A key of this source is needed"), "{ended:?}");
    assert!(!ended.stderr.contains("wrong-key"), "{ended:?}");
    let refused = ended.stdout.split(' ').nth(4).unwrap().parse::<u32>().unwrap();
    assert!(refused < 20, "it went on: {ended:?}");

    let ended = branchline(&["send", "--url", &url, "--key", KEY], "{\"eventType\":").await;
    assert!(ended.code == 1 && ended.stderr.contains("the input is not JSON: EOF"), "{ended:?}");
    let ended = branchline(&["send", "--config", "no-such-file.toml"], "").await;
    assert!(ended.code == 78 && ended.stderr.contains("no-such-file.toml"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_can_t_take_events_now_is_asked_again_when_it_says() {
    let receiver = Receiver::start().await;
    receiver.answers("/v1/events", &[503, 429, 200]);
    let url = receiver.url("/v1/events");
    let ended = branchline(&["send", "--url", &url], r#"{"eventType":"a.b","payload":1}"#).await;
    assert!(ended.code == 1 && ended.stderr.contains("not one of a Branchline source"), "{ended:?}");
    let bodies: Vec<_> = receiver.received("/v1/events").into_iter().map(|received| received.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "the same events under the same ids");
}

/// A `branchline send` under way: two events, and a standard input that goes on.
struct Sending(Child);

impl Sending {
    fn start(url: &str, wait: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_branchline"))
            .args(["send", "--url", url, "--key", KEY, "--batch", "1", "--wait", wait])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        // An event is sent when the next one shows that it is whole.
        stdin.write_all(br#"{"eventType":"a.b","payload":1}{"eventType":"a.b","payload":2}{"#).unwrap();
        Self(child)
    }

    fn first_line_of_stderr(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn interrupt(&self) {
        kill_process(Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    }

    /// Exit code, standard output, and what is left of standard error. The input is still open.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code(), stdout, stderr)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_can_t_be_reached_is_told_of_at_once_and_asked_again() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    let place = format!("http://127.0.0.1:{}", router.ingest);
    let mut sending = Sending::start(&format!("{place}/v1/events"), "10m");
    let (sending, line) = tokio::task::spawn_blocking(move || {
        let line = sending.first_line_of_stderr();
        (sending, line)
    })
    .await
    .unwrap();
    assert!(line.starts_with(&format!("no router answers at {place}: ")), "{line}");
    assert!(line.contains("; trying again for ") && line.contains(", until 2"), "{line}");
    router.start().await;
    let stored = eventually("an event is stored", PATIENCE, async || {
        let (_, listed) = router.get("/api/v1/events").await?;
        listed.contains("evt_").then_some(())
    });
    stored.await;
    sending.interrupt();
    let (code, stdout, stderr) = tokio::task::spawn_blocking(|| sending.end()).await.unwrap();
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("branchline: interrupted: ") && stderr.contains("of the input was not sent"), "{stderr}");

    let url = format!("http://127.0.0.1:{}/v1/events", free_port());
    let ended = branchline(&["send", "--url", &url, "--wait", "0s"], r#"[{"eventType":"a.b","payload":1}]"#).await;
    assert_eq!((ended.code, &*ended.stdout), (1, "0 accepted, 0 duplicates, 0 refused, 1 not sent\n"), "{ended:?}");
    assert!(ended.stderr.contains("(given up after 0s): 1 event was not sent\n"), "{ended:?}");
    assert!(!ended.stderr.contains("trying again"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_sending_ends_at_once_and_says_what_may_be_stored_and_what_is_not() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/events", silent.local_addr().unwrap());
    let sending = Sending::start(&url, "10m");
    let ended = tokio::task::spawn_blocking(move || {
        let (mut connection, _) = silent.accept().unwrap();
        // The request is under way.
        connection.read_exact(&mut [0; 4]).unwrap();
        sending.interrupt();
        sending.end()
    });
    let (code, stdout, stderr) = ended.await.unwrap();
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert_eq!(stdout, "0 accepted, 0 duplicates, 0 refused, 1 without an answer\n");
    let said = "branchline: interrupted: 1 event had no answer and may be stored, what follows event 1 of the input was not sent\n";
    assert_eq!(stderr, said);
}
