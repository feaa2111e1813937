//! Who asks for names, and who answers?

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clients::{self, Load};

/// A client that asks for names of its own.
pub struct Client {
    socket: UdpSocket,
    number: usize,
}

/// So many clients, which ask this address.
pub fn connect(address: SocketAddr, count: usize) -> Result<Load<Client>> {
    Load::connect(count, |number| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Client { socket, number })
    })
}

impl clients::Client for Client {
    /// The last of a hundred patterns allows it.
    fn ask(&mut self, number: usize) -> Result<()> {
        let Client { socket, number: client } = self;
        let host = format!("host-{client}-{}", number % 100);
        let id = (number as u16).to_be_bytes();
        let mut question = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in [host.as_str(), "service-99", "shop", "example"] {
            question.push(label.len() as u8);
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        socket.send(&question)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).context("no answer")?;
        let right = answer[..2] == id && answer[2] & 0x80 != 0 && answer[3] & 15 == 0 && answer[7] == 1;
        ensure!(right && length == question.len() + ANSWER.len(), "{:?}", &answer[..length]);
        Ok(())
    }
}

/// An address of the name that was asked for, for 30 seconds.
const ANSWER: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1];

/// A server that knows every name.
pub fn server() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    std::thread::Builder::new().name("names".into()).spawn(move || {
        let mut message = [0; 1_024];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            // Additional records are not asked for; dnsmasq adds some.
            let end = 12 + message[12..length].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
            message[2..4].copy_from_slice(&[0x81, 0x80]);
            message[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            message[end..end + ANSWER.len()].copy_from_slice(&ANSWER);
            let _ = socket.send_to(&message[..end + ANSWER.len()], client);
        }
    })?;
    Ok(address)
}
