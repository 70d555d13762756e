//! A process inside a pod: this test binary started again, in the pod's cgroup and network namespace, obeying over a
//! socket on its standard input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use orlop_podnet::NetNs;
use serde::{Deserialize, Serialize};

use super::churn::churn;
use super::connects::{
    connect, connect_by_ring, connect_fast_open, connect_nonblocking, connect_while, connect_with, ping,
    reconnect, socket_for, udp,
};
use super::pod::Pod;

/// Tells the process what it is for, in its environment.
const STARTED_BY_A_TEST: &str = "ORLOP_TEST_INSIDE_A_POD";

/// What a process in a pod can be asked.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Listen, and greet every client with a line: the greeting, the own address, the client's address.
    Listen { at: SocketAddr, greeting: String },
    /// Connect once.
    Connect { to: SocketAddr },
    /// Connect once, by Multipath TCP.
    ConnectMptcp { to: SocketAddr },
    /// Connect once, with a mark on the socket.
    ConnectMarked { to: SocketAddr, mark: u32 },
    /// Connect once, from this address and port.
    ConnectFrom { from: SocketAddr, to: SocketAddr },
    /// Connect once, by an operation of `io_uring(7)`.
    ConnectByRing { to: SocketAddr },
    /// Send an echo request of ICMP and wait for the answer.
    Ping { to: IpAddr },
    /// Connect once, without waiting in the call.
    ConnectNonblocking { to: SocketAddr },
    /// Connect once with TCP Fast Open: the SYN goes with the first bytes.
    ConnectFastOpen { to: SocketAddr },
    /// Answer every datagram with the greeting.
    ListenUdp { at: SocketAddr, greeting: String },
    /// Send a datagram and wait for the answer, over a socket that is connected or not.
    Udp { to: SocketAddr, connected: bool },
    /// Connect this often, one after the other.
    ConnectMany { to: SocketAddr, times: u32 },
    /// Connect to the first with a socket that is dissolved (`AF_UNSPEC`) and then connected to the second.
    Reconnect { first: SocketAddr, then: SocketAddr },
    /// Connect this often and keep the connections.
    Hold { to: SocketAddr, times: u32 },
    /// Say how many of the kept connections are still open, by the address they lead to.
    Held,
    /// Close the kept connections.
    LetGo,
    /// Open and close connections in every way, this often, and keep some of them.
    Churn { to: Vec<SocketAddr>, times: u32 },
    /// Connect all the time from now on.
    StartConnecting { to: SocketAddr },
    /// Stop that, and say how it went.
    StopConnecting,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Listening,
    Connected(Connected),
    Refused { error: String, after: Duration },
    Greeted { by: BTreeMap<String, u32>, failures: Vec<String> },
    Connecting,
    Held { by: BTreeMap<SocketAddr, u32> },
    Answered { by: String, from: SocketAddr },
}

/// A connection as both its ends see it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connected {
    /// Who greeted.
    pub(crate) greeting: String,
    /// `getsockname` of the client.
    pub(crate) local: SocketAddr,
    /// `getpeername` of the client.
    pub(crate) peer: SocketAddr,
    /// `getsockname` of whoever accepted.
    pub(crate) accepted_local: SocketAddr,
    /// `getpeername` of whoever accepted.
    pub(crate) accepted_peer: SocketAddr,
}

/// The process. Killed on drop.
pub(crate) struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    pub(crate) fn start(pod: &Pod) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "support::process::inside_a_pod", "--nocapture"])
            .env(STARTED_BY_A_TEST, "1")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Before the first question, so every socket of its is made inside.
        fs::write(pod.cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let mut process = Self { child, socket: BufReader::new(ours) };
        process.send(&pod.netns.path());
        process
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.send(ask);
        receive(&mut self.socket).expect("the process inside the pod ended")
    }

    pub(crate) fn listen(&mut self, at: &str, greeting: &str) {
        let ask = Ask::Listen { at: at.parse().unwrap(), greeting: greeting.to_owned() };
        assert!(matches!(self.ask(&ask), Reply::Listening));
    }

    pub(crate) fn connect(&mut self, to: &str) -> Connected {
        match self.ask(&Ask::Connect { to: to.parse().unwrap() }) {
            Reply::Connected(connected) => connected,
            other => panic!("connect to {to}: {other:?}"),
        }
    }

    /// Connects with the mark of Orlop's own connections.
    pub(crate) fn connect_marked(&mut self, to: &str) -> Connected {
        match self.ask(&Ask::ConnectMarked { to: to.parse().unwrap(), mark: orlop_datapath::MARK }) {
            Reply::Connected(connected) => connected,
            other => panic!("connect to {to}: {other:?}"),
        }
    }

    /// The error of a connect that must fail, and how long it took.
    pub(crate) fn refused(&mut self, to: &str) -> (String, Duration) {
        match self.ask(&Ask::Connect { to: to.parse().unwrap() }) {
            Reply::Refused { error, after } => (error, after),
            other => panic!("connect to {to}: {other:?}"),
        }
    }

    /// Who greeted how often; fails on any failure.
    pub(crate) fn connect_many(&mut self, to: &str, times: u32) -> BTreeMap<String, u32> {
        greeted(self.ask(&Ask::ConnectMany { to: to.parse().unwrap(), times }))
    }

    pub(crate) fn hold(&mut self, to: &str, times: u32) {
        self.ask(&Ask::Hold { to: to.parse().unwrap(), times });
    }

    /// How many kept connections are still open, by the address they lead to.
    pub(crate) fn held(&mut self) -> BTreeMap<SocketAddr, u32> {
        match self.ask(&Ask::Held) {
            Reply::Held { by } => by,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn let_go(&mut self) {
        self.ask(&Ask::LetGo);
    }

    pub(crate) fn churn(&mut self, to: &[&str], times: u32) {
        let to = to.iter().map(|to| to.parse().unwrap()).collect();
        self.ask(&Ask::Churn { to, times });
    }

    pub(crate) fn start_connecting(&mut self, to: &str) {
        assert!(matches!(self.ask(&Ask::StartConnecting { to: to.parse().unwrap() }), Reply::Connecting));
    }

    /// Who greeted how often since; fails on any failure.
    pub(crate) fn stop_connecting(&mut self) -> BTreeMap<String, u32> {
        greeted(self.ask(&Ask::StopConnecting))
    }

    fn send(&mut self, message: &impl Serialize) {
        send(self.socket.get_mut(), message);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn greeted(reply: Reply) -> BTreeMap<String, u32> {
    match reply {
        Reply::Greeted { by, failures } if failures.is_empty() => by,
        other => panic!("{other:?}"),
    }
}

fn send(mut socket: &UnixStream, message: &impl Serialize) {
    let mut line = serde_json::to_string(message).unwrap();
    line.push('\n');
    socket.write_all(line.as_bytes()).unwrap();
}

fn receive<T: for<'a> Deserialize<'a>>(socket: &mut BufReader<UnixStream>) -> Option<T> {
    let mut line = String::new();
    let read = socket.read_line(&mut line).ok()?;
    (read > 0).then(|| serde_json::from_str(&line).unwrap())
}

/// Not a test: what [`Process::start`] starts. Does nothing when started by anyone else.
#[test]
#[ignore = "the other tests start it inside a pod"]
fn inside_a_pod() {
    if std::env::var_os(STARTED_BY_A_TEST).is_none() {
        return;
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut socket = BufReader::new(UnixStream::from(stdin));
    let netns = receive::<std::path::PathBuf>(&mut socket).unwrap();
    // Threads that are started inside stay inside.
    NetNs::open(&netns).unwrap().run(|| obey(&mut socket)).unwrap();
}

fn obey(socket: &mut BufReader<UnixStream>) {
    let mut connecting = None;
    let mut kept = Vec::new();
    while let Some(ask) = receive(socket) {
        let reply = match ask {
            Ask::Listen { at, greeting } => {
                greet_on(TcpListener::bind(at).unwrap(), greeting);
                Reply::Listening
            }
            Ask::Connect { to } => connect(to),
            Ask::ConnectMany { to, times } => connect_while(to, |done| done < times),
            Ask::Reconnect { first, then } => reconnect(first, then),
            Ask::ConnectMptcp { to } => connect_with(socket_for(to, Some(rustix::net::ipproto::MPTCP)), to),
            Ask::ConnectMarked { to, mark } => {
                let socket = socket_for(to, None);
                socket2::SockRef::from(&socket).set_mark(mark).unwrap();
                connect_with(socket, to)
            }
            Ask::ConnectFrom { from, to } => {
                let socket = socket_for(to, None);
                rustix::net::bind(&socket, &from).unwrap();
                connect_with(socket, to)
            }
            Ask::ConnectByRing { to } => connect_by_ring(to),
            Ask::Ping { to } => ping(to).unwrap(),
            Ask::Hold { to, times } => {
                kept.extend((0..times).map(|_| TcpStream::connect(to).unwrap()));
                Reply::Held { by: still_open(&kept) }
            }
            Ask::Held => Reply::Held { by: still_open(&kept) },
            Ask::LetGo => {
                kept.clear();
                Reply::Held { by: BTreeMap::new() }
            }
            Ask::Churn { to, times } => {
                kept.extend(churn(&to, times));
                Reply::Held { by: still_open(&kept) }
            }
            Ask::ConnectNonblocking { to } => connect_nonblocking(to),
            Ask::ConnectFastOpen { to } => connect_fast_open(to),
            Ask::ListenUdp { at, greeting } => {
                answer_on(UdpSocket::bind(at).unwrap(), greeting);
                Reply::Listening
            }
            Ask::Udp { to, connected } => udp(to, connected).unwrap(),
            Ask::StartConnecting { to } => {
                let go_on = Arc::new(AtomicBool::new(true));
                let flag = Arc::clone(&go_on);
                let thread = thread::spawn(move || connect_while(to, |_| flag.load(Ordering::Relaxed)));
                connecting = Some((go_on, thread));
                Reply::Connecting
            }
            Ask::StopConnecting => {
                let (go_on, thread) = connecting.take().unwrap();
                go_on.store(false, Ordering::Relaxed);
                thread.join().unwrap()
            }
        };
        send(socket.get_mut(), &reply);
    }
}

/// A connection that was reset or aborted has no peer any more.
fn still_open(kept: &[TcpStream]) -> BTreeMap<SocketAddr, u32> {
    let mut by = BTreeMap::new();
    for peer in kept.iter().filter_map(|stream| stream.peer_addr().ok()) {
        *by.entry(peer).or_default() += 1;
    }
    by
}

/// Greets every client in a line of its own, until the process ends.
pub(crate) fn greet_on(listener: TcpListener, greeting: String) {
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { continue };
            let greeting = greeting.clone();
            thread::spawn(move || greet(client, &greeting));
        }
    });
}

fn greet(mut client: TcpStream, greeting: &str) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    let (local, peer) = (client.local_addr()?, client.peer_addr()?);
    client.write_all(format!("{greeting} {local} {peer}\n").as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // The client closes first and keeps the TIME_WAIT.
    client.read(&mut [0; 1]).map(drop)
}

/// An address that is compared without its port.
pub(crate) fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

fn answer_on(socket: UdpSocket, greeting: String) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(greeting.as_bytes(), from));
        }
    });
}
