//! A plain HTTP server on loopback for unit tests: one request and one response for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

/// Answers requests until `answer` returns none; it gets the first line of each request without the protocol version, and
/// returns status and body. Returns the URL.
pub(crate) fn serve(mut answer: impl FnMut(&str) -> Option<(u16, String)> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let head: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let length =
                head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            let Some((status, body)) = answer(head[0].trim_end_matches(" HTTP/1.1")) else { return };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}
