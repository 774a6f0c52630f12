//! A local port beside a direct TLS connection: the same application, the same proxy, the same cipher; only the agent is in between or not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use criterion::{Criterion, SamplingMode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::World;

/// The application that is not HTTP.
pub(crate) const APP: &str = "echo";
/// Sent each way in one measurement of throughput: far more than all buffers on the way.
const BULK: usize = 32 * 1024 * 1024;
/// What is written at once.
const CHUNK: usize = 64 * 1024;
/// Connections whose memory is looked at.
const IDLE: usize = 1000;

/// Prints ratios to a direct connection, time added to a round trip, and memory of idle connections. Both ways are measured in turns, so that
/// what else the machine does meets both.
pub(crate) fn tunnel(world: &World, tbot: &Path, out: &Path) -> Result<()> {
    let (agent, address) = Agent::start(world, tbot, out)?;
    let results = tempfile::tempdir()?;
    let mut criterion = Criterion::default().without_plots().output_directory(results.path()).sample_size(20);
    let mut direct = direct(world, out)?;
    let mut through = connect(&address)?;
    let cipher = direct.tls.conn.negotiated_cipher_suite().context("no cipher")?.suite();
    let mut turns = |name: &str, measure: fn(&mut dyn Both) -> Result<()>| -> Result<Vec<[f64; 2]>> {
        let (mut turns, mut broken) = (Vec::new(), None);
        let mut seconds = |connection: &mut dyn Both| {
            let started = Instant::now();
            broken = measure(connection).err().or(broken.take());
            started.elapsed()
        };
        let mut group = criterion.benchmark_group("tunnel");
        group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(10));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut all = Duration::ZERO;
                for _ in 0..times {
                    let (direct, through) = (seconds(&mut direct), seconds(&mut through));
                    turns.push([direct.as_secs_f64(), through.as_secs_f64()]);
                    all += through;
                }
                all
            });
        });
        group.finish();
        broken.map_or(Ok(turns), Err)
    };
    let (up, down, round_trips) = (turns("up", up)?, turns("down", down)?, turns("round trip", round_trip)?);
    println!("\na local port beside a direct TLS connection, {cipher:?}");
    for (name, turns) in [("up", up), ("down", down)] {
        let speed = |seconds: f64| BULK as f64 / 1e6 / seconds;
        let ratio = median(&turns, |[direct, through]| direct / through);
        let (direct, through) = (median(&turns, |turn| speed(turn[0])), median(&turns, |turn| speed(turn[1])));
        println!("throughput {name:<15} {ratio:>8.2} of direct ({through:.0} of {direct:.0} MB/s)");
    }
    let added = median(&round_trips, |[direct, through]| (through - direct) * 1e6);
    println!("added to a round trip      {added:>8.1} µs");
    println!("an idle connection         {:>8.1} KiB RSS (mean of {IDLE})", agent.idle(&address)?);
    Ok(())
}

fn median(turns: &[[f64; 2]], of: impl Fn(&[f64; 2]) -> f64) -> f64 {
    let mut all: Vec<_> = turns.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A running `tbot proxy`.
struct Agent(Child);

impl Agent {
    /// With the address of its port.
    fn start(world: &World, tbot: &Path, out: &Path) -> Result<(Self, String)> {
        let proxy = format!("--proxy-server=localhost:{}", world.cluster.proxy_addr().port());
        let mut command = Command::new(tbot);
        command.arg("proxy").arg(proxy).arg("--destination-dir").arg(out).args(["app", APP]);
        command.env("SSL_CERT_FILE", world.web_ca()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut agent = Self(command.spawn()?);
        let mut line = Vec::new();
        let mut printed = agent.0.stdout.take().context("no output")?;
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            printed.read_exact(&mut byte).context("the port did not open")?;
            line.push(byte[0]);
        }
        let line = String::from_utf8(line)?;
        Ok((agent, line.trim_end().rsplit(' ').next().context("no address")?.to_owned()))
    }

    /// KiB of resident memory that each of so many connections adds, once each has been used.
    fn idle(&self, address: &str) -> Result<f64> {
        let before = crate::resident_kibibytes(self.0.id())?;
        let mut connections = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut connection = connect(address)?;
            round_trip(&mut connection)?;
            connections.push(connection);
        }
        Ok((crate::resident_kibibytes(self.0.id())? - before) / IDLE as f64)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already, or ended now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

trait Both: Read + Write {}

impl<S: Read + Write> Both for S {}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What the agent does for each connection, done by the client itself.
fn direct(world: &World, out: &Path) -> Result<Framed> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(world.web_ca())? {
        roots.add(root?)?;
    }
    let certificates = CertificateDer::pem_file_iter(out.join("tlscert"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(out.join("key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(certificates, key)?;
    config.alpn_protocols = vec![b"teleport-tcp-ping".to_vec()];
    let address = format!("localhost:{}", world.cluster.proxy_addr().port());
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut stream = Framed { tls: StreamOwned::new(session, connect(&address)?), left: 0 };
    round_trip(&mut stream)?;
    Ok(stream)
}

/// Bytes in frames with a length of four bytes, as this protocol has them.
struct Framed {
    tls: Tls,
    /// Of the present frame.
    left: usize,
}

impl Read for Framed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let mut length = [0; 4];
            self.tls.read_exact(&mut length)?;
            self.left = u32::from_be_bytes(length) as usize;
        }
        let room = buffer.len().min(self.left);
        let n = self.tls.read(&mut buffer[..room])?;
        self.left -= n;
        Ok(n)
    }
}

impl Write for Framed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.tls.write_all(&[&(bytes.len() as u32).to_be_bytes()[..], bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tls.flush()
    }
}

/// One byte there and back.
fn round_trip(stream: &mut dyn Both) -> Result<()> {
    ask(stream, b'r', 0)
}

/// Everything there, one byte back.
fn up(stream: &mut dyn Both) -> Result<()> {
    ask(stream, b'u', BULK)
}

fn down(stream: &mut dyn Both) -> Result<()> {
    stream.write_all(b"d")?;
    stream.flush()?;
    take(stream, BULK)
}

fn ask(stream: &mut dyn Both, word: u8, bytes: usize) -> Result<()> {
    stream.write_all(&[word])?;
    give(stream, bytes)?;
    take(stream, 1)
}

fn give(stream: &mut (impl Write + ?Sized), bytes: usize) -> Result<()> {
    for _ in 0..bytes / CHUNK {
        stream.write_all(&[7; CHUNK])?;
    }
    Ok(stream.flush()?)
}

fn take(stream: &mut (impl Read + ?Sized), mut bytes: usize) -> Result<()> {
    let mut buffer = [0; CHUNK];
    while bytes > 0 {
        let room = bytes.min(CHUNK);
        match stream.read(&mut buffer[..room])? {
            0 => anyhow::bail!("the application has gone"),
            n => bytes -= n,
        }
    }
    Ok(())
}

/// The application: its `host:port`. It ends with the process.
pub(crate) fn application() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One thread each; whoever leaves ends it.
            std::thread::Builder::new()
                .stack_size(4 * CHUNK)
                .spawn(move || serve(stream))
                .map(drop)
                .unwrap_or_default();
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut word = [0];
        stream.read_exact(&mut word)?;
        match word[0] {
            b'd' => give(&mut stream, BULK)?,
            word => {
                take(&mut stream, if word == b'u' { BULK } else { 0 })?;
                stream.write_all(b".")?;
            }
        }
    }
}
